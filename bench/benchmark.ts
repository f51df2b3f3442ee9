import type { Measure } from "./measure.ts";

export interface BenchContext {
  /** Aborts when the run shall end: whatever waits gives up, and cleans up. */
  signal: AbortSignal;
  /** Tells whoever watches how far it is. */
  say(line: string): void;
  /** Where the service under test leaves CPU profiles; undefined: it makes none, and is faster. */
  cpuProfDir: string | undefined;
}

export interface Benchmark {
  name: string;
  run: (ctx: BenchContext) => Promise<Measure[]>;
}
