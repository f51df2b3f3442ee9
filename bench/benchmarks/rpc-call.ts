import type { Benchmark } from "../benchmark.ts";
import { toCpuPer, toMeasure } from "../measure.ts";
import { openService } from "../service.ts";
import { quantile } from "../statistics.ts";
import { timePairs } from "../time-pairs.ts";
import { USER } from "../user.ts";

const ROUNDS = 5;
const PAIRS = 500;
const WARM_UP_ROUNDS = 4;
const METHOD = "bench.nothing";

export const rpcCall: Benchmark = {
  name: "rpc-call",
  run: async (ctx) => {
    await using service = await openService(ctx, { engine: "bench" });
    const { client } = await service.openProduct();
    const { engine } = await client.api.engines.provision.mutate({ userId: USER });
    const body = JSON.stringify({ method: METHOD, params: {} });
    // No signal: each fetch makes a long-lived signal slower.
    const callDirect = async () => {
      const response = await fetch(`${engine.url}/rpc`, { method: "POST", body });
      await response.json();
    };
    const callOurs = async () => client.api.rpc.call.mutate({ userId: USER, method: METHOD });
    const rounds = await timePairs(ctx, {
      service,
      what: `${PAIRS} calls`,
      pairs: PAIRS,
      rounds: ROUNDS,
      warmUpRounds: WARM_UP_ROUNDS,
      ours: async () => time(callOurs),
      baseline: async () => time(callDirect),
    });

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
        baseline: rounds.map(({ baseline }) => quantile(baseline, share)),
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
