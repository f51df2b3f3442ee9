import type { BenchContext } from "./benchmark.ts";
import { toUsed, type CpuReading } from "./cpu-meter.ts";
import type { Service } from "./service.ts";

export interface PairsInput {
  service: Pick<Service, "readCpu">;
  /** Names the work in the progress output, such as "500 calls". */
  what: string;
  pairs: number;
  rounds: number;
  /** Rounds that do not count, until the code is compiled: a service runs for months, a benchmark for seconds. */
  warmUpRounds: number;
  /** Runs once and returns its own time in milliseconds, without preparation and clean-up. */
  ours: () => Promise<number>;
  baseline: () => Promise<number>;
}

/** The milliseconds of each run, and the CPU of the whole round. */
export interface PairsRound {
  ours: number[];
  baseline: number[];
  cpu: CpuReading;
}

/** Alternates baseline and ours, so that other load on the machine affects both equally. */
export async function timePairs(
  ctx: Pick<BenchContext, "signal" | "log">,
  input: PairsInput,
): Promise<PairsRound[]> {
  const { service, pairs } = input;
  const run = async (): Promise<PairsRound> => {
    const ours: number[] = [];
    const baseline: number[] = [];
    const from = await service.readCpu();
    for (let pair = 0; pair < pairs; pair += 1) {
      ctx.signal.throwIfAborted();
      baseline.push(await input.baseline());
      ours.push(await input.ours());
    }
    return { ours, baseline, cpu: toUsed(from, await service.readCpu()) };
  };
  for (let warmUp = 0; warmUp < input.warmUpRounds; warmUp += 1) await run();
  ctx.log(`${input.rounds} rounds of ${input.what}`);
  const rounds: PairsRound[] = [];
  while (rounds.length < input.rounds) rounds.push(await run());
  return rounds;
}
