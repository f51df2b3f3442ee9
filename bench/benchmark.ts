import type { Measure } from "./measure.ts";

export interface BenchContext {
  /** Aborts when the run must end. Every wait then stops, and the benchmark cleans up. */
  signal: AbortSignal;
  /** Prints the progress. */
  log(line: string): void;
  /** Folder for the CPU profiles of the service under test. undefined: no profiles, and a faster service. */
  cpuProfDir: string | undefined;
}

export interface Benchmark {
  name: string;
  run: (ctx: BenchContext) => Promise<Measure[]>;
}
