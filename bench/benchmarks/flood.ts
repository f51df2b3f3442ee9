import { setTimeout as sleep } from "node:timers/promises";
import type { Client } from "../../client/index.ts";
import type { Benchmark } from "../benchmark.ts";
import { toUsed } from "../cpu-meter.ts";
import { toCpuPer, toMeasure, type Measure } from "../measure.ts";
import { openService, type Service } from "../service.ts";
import { quantile } from "../statistics.ts";
import { USER } from "../user.ts";

const ENGINES = 1_000;
const QUIET_CALLS = 500;
/** The pause between two calls of the other product. */
const PACE_MS = 20;

/** One product provisions and destroys a thousand engines at once. Another product calls its engine in the same time. */
export const flood: Benchmark = {
  name: "flood",
  run: async (ctx) => {
    await using service = await openService(ctx, { engine: "tiny" });
    const { client: flooding } = await service.openProduct();
    const { client: other } = await service.openProduct();
    await other.api.engines.provision.mutate({ userId: USER });
    await callWhile(other, QUIET_CALLS);
    const quiet = await callWhile(other, QUIET_CALLS);

    const users = Array.from({ length: ENGINES }, (_, index) => `user-${index}`);
    const { provision, destroy } = flooding.api.engines;
    const measures: Measure[] = [];
    for (const [name, work] of [
      ["provisions", async (userId: string): Promise<unknown> => provision.mutate({ userId })],
      ["destroys", async (userId: string): Promise<unknown> => destroy.mutate({ userId })],
    ] as const) {
      ctx.log(`${ENGINES} ${name} at once`);
      measures.push(
        await measureFlood(service, { other, quiet, name, work: async () => Promise.all(users.map(work)) }),
      );
    }
    return measures;
  },
};

interface Flood {
  other: Client;
  quiet: readonly number[];
  name: string;
  work: () => Promise<unknown>;
}

async function measureFlood(service: Service, { other, quiet, name, work }: Flood): Promise<Measure> {
  const from = await service.readCpu();
  let hasEnded = false;
  const working = work().finally(() => {
    hasEnded = true;
  });
  const calls = await callWhile(other, Infinity, () => hasEnded);
  await working;
  const cpu = toUsed(from, await service.readCpu());
  return toMeasure({
    measure: `rpc.call of another product during ${ENGINES} ${name}, p99`,
    unit: "ms",
    ours: [quantile(calls, 0.99)],
    baseline: [quantile(quiet, 0.99)],
    against: "the same calls without them",
    bound: { kind: "ratio_at_most", times: 5 },
    cpu: toCpuPer(name.slice(0, -1), ENGINES, [cpu]),
  });
}

/** Makes calls one after the other. Returns the milliseconds of each. */
async function callWhile(client: Client, most: number, hasEnded = () => false): Promise<number[]> {
  const times: number[] = [];
  while (times.length < most && !hasEnded()) {
    const begin = performance.now();
    await client.api.rpc.call.mutate({ userId: USER, method: "get_config" });
    times.push(performance.now() - begin);
    await sleep(PACE_MS);
  }
  return times;
}
