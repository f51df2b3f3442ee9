import { setTimeout as sleep } from "node:timers/promises";
import { createClient, type Client } from "../../client/index.ts";
import type { Benchmark } from "../benchmark.ts";
import { toMeasure } from "../measure.ts";
import { openService, type Service } from "../service.ts";
import { quantile } from "../statistics.ts";
import { USER } from "../user.ts";

const ROUNDS = 5;
const CALLS = 300;
const FLOODERS = 32;
/** The pause between two calls of the other product. */
const PACE_MS = 5;
/** In this time the flood reaches its limits. */
const FILL_MS = 5_000;
/** Low, because a product may do real work up to its limits. The measure is about the flood that comes after it. */
const POLICY = { rateLimitRpm: 60, turnLimitRpm: 10 };

/** One product calls everything without a pause, beyond its limits. Another product calls its engine in the same time. */
export const fairness: Benchmark = {
  name: "fairness",
  run: async (ctx) => {
    await using service = await openService(ctx, { engine: "bench" });
    const { client: other } = await service.openProduct();
    await other.api.engines.provision.mutate({ userId: USER });
    const flooding = await service.openProduct();
    // The second engine, too, which the flood provisions again and again.
    for (const userId of [USER, "eve"]) await flooding.client.api.engines.provision.mutate({ userId });
    const operator = createClient({ url: service.url, key: service.adminKey });
    await operator.api.products.updatePolicy.mutate({ productId: flooding.productId, policy: POLICY });
    await callOften(other, 3 * CALLS);

    const quiet: number[] = [];
    const flooded: number[] = [];
    ctx.log(`${ROUNDS} rounds of ${CALLS} calls, beside ${FLOODERS} callers of a product beyond its limits`);
    for (let round = 0; round < ROUNDS; round += 1) {
      quiet.push(quantile(await callOften(other, CALLS), 0.99));
      await using _flood = await openFlood(service, flooding.apiKey);
      await sleep(FILL_MS, undefined, { signal: ctx.signal });
      flooded.push(quantile(await callOften(other, CALLS), 0.99));
    }
    return [
      toMeasure({
        measure: "rpc.call of another product beside one beyond its limits, p99",
        unit: "ms",
        ours: flooded,
        baseline: quiet,
        against: "the same calls without it",
        bound: { kind: "ratio_at_most", times: 3 },
      }),
    ];
  },
};

async function openFlood(service: Service, key: string): Promise<AsyncDisposable> {
  return service.openBaseline("flooding-product", {
    BENCH_FLOOD_URL: service.url,
    BENCH_FLOOD_KEY: key,
    BENCH_FLOOD_CALLERS: String(FLOODERS),
  });
}

/** Makes calls one after the other. Returns the milliseconds of each. */
async function callOften(client: Client, calls: number): Promise<number[]> {
  const times: number[] = [];
  for (let call = 0; call < calls; call += 1) {
    const begin = performance.now();
    await client.api.rpc.call.mutate({ userId: USER, method: "bench.nothing" });
    times.push(performance.now() - begin);
    await sleep(PACE_MS);
  }
  return times;
}
