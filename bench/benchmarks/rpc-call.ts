import type { Benchmark } from "../benchmark.ts";
import { toUsed, type CpuReading } from "../cpu-meter.ts";
import { toCpuPer, toMeasure } from "../measure.ts";
import { openService } from "../service.ts";
import { quantile } from "../statistics.ts";
import { USER } from "../user.ts";

const ROUNDS = 5;
const PAIRS = 500;
/** Until the code that serves a call is compiled. */
const WARM_UP_ROUNDS = 4;
const METHOD = "bench.nothing";

export const rpcCall: Benchmark = {
  name: "rpc-call",
  run: async (ctx) => {
    await using service = await openService(ctx, { engine: "bench" });
    const { client } = await service.openProduct();
    const { engine } = await client.api.engines.provision.mutate({ userId: USER });
    const body = JSON.stringify({ method: METHOD, params: {} });
    // No signal: one that lives long gets slower with each fetch that listens to it.
    const callDirect = async () => {
      const response = await fetch(`${engine.url}/rpc`, { method: "POST", body });
      await response.json();
    };
    const callOurs = async () => client.api.rpc.call.mutate({ userId: USER, method: METHOD });
    const round = async () => {
      const ours: number[] = [];
      const direct: number[] = [];
      const from = await service.readCpu();
      for (let pair = 0; pair < PAIRS; pair += 1) {
        ctx.signal.throwIfAborted();
        direct.push(await time(callDirect));
        ours.push(await time(callOurs));
      }
      return { ours, direct, cpu: toUsed(from, await service.readCpu()) };
    };
    for (let warmUp = 0; warmUp < WARM_UP_ROUNDS; warmUp += 1) await round();
    ctx.say(`${ROUNDS} rounds of ${PAIRS} calls`);
    const rounds: { ours: number[]; direct: number[]; cpu: CpuReading }[] = [];
    while (rounds.length < ROUNDS) rounds.push(await round());

    const cpu = toCpuPer(
      "call",
      PAIRS,
      rounds.map((each) => each.cpu),
    );
    const toAdded = (share: number, amount: number) =>
      toMeasure({
        measure: `rpc.call, added, p${share * 100}`,
        unit: "ms",
        ours: rounds.map(({ ours }) => quantile(ours, share)),
        baseline: rounds.map(({ direct }) => quantile(direct, share)),
        against: "the engine called directly",
        bound: { kind: "added_at_most", amount },
        cpu,
      });
    return [toAdded(0.5, 2), toAdded(0.99, 15)];
  },
};

async function time(work: () => Promise<unknown>): Promise<number> {
  const begin = performance.now();
  await work();
  return performance.now() - begin;
}
