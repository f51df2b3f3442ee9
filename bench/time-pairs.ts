import type { BenchContext } from "./benchmark.ts";
import { toUsed, type CpuReading } from "./cpu-meter.ts";
import type { Service } from "./service.ts";

export interface PairsInput {
  service: Pick<Service, "readCpu">;
  /** What is timed, for whoever watches: "500 calls". */
  what: string;
  pairs: number;
  rounds: number;
  /** Until the code that serves it is compiled: a service is up for months, and a test of it for a second. */
  warmUpRounds: number;
  /** Milliseconds of one, timed by itself: what leads up to or follows it does not count. */
  ours: () => Promise<number>;
  baseline: () => Promise<number>;
}

/** Milliseconds of each, and what the round took of the CPU. */
export interface PairsRound {
  ours: number[];
  baseline: number[];
  cpu: CpuReading;
}

/** One of each in turn, so that whatever else the machine does falls on both alike. */
export async function timePairs(
  ctx: Pick<BenchContext, "signal" | "say">,
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
  ctx.say(`${input.rounds} rounds of ${input.what}`);
  const rounds: PairsRound[] = [];
  while (rounds.length < input.rounds) rounds.push(await run());
  return rounds;
}
