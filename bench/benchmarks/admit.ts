import { createClient } from "../../client/index.ts";
import type { Benchmark } from "../benchmark.ts";
import { toUsed } from "../cpu-meter.ts";
import { toCpuPer, toMeasure } from "../measure.ts";
import type { Program } from "../program.ts";
import { repeatCall } from "../repeat-call.ts";
import { alternate } from "../rounds.ts";
import { openService } from "../service.ts";
import { USER } from "../user.ts";

const ROUNDS = 5;
const WORKERS = 32;
const DURATION_MS = 2_000;
/** So high that no round reaches it. */
const RPM = 100_000_000;

/** All calls are of one product and one engine. So with a rate limit, they all count in the same row. */
export const admit: Benchmark = {
  name: "admit",
  run: async (ctx) => {
    await using service = await openService(ctx, { engine: "bench" });
    const free = await service.openProduct();
    const limited = await service.openProduct();
    for (const { client } of [free, limited]) await client.api.engines.provision.mutate({ userId: USER });
    const operator = createClient({ url: service.url, key: service.adminKey });
    const { productId } = limited;
    await operator.api.products.updatePolicy.mutate({ productId, policy: { rateLimitRpm: RPM } });
    const noOp = await service.openBaseline("no-op");
    const call = {
      path: "/trpc/engines.admit",
      input: { userId: USER },
      workers: WORKERS,
      durationMs: DURATION_MS,
      signal: ctx.signal,
    };
    const measure = async ({ url, pid }: Pick<Program, "url" | "pid">, apiKey: string) => {
      const read = async () => service.readCpuOf({ pid });
      const from = await read();
      const rate = await repeatCall(url, { ...call, apiKey });
      const { program, postgres } = toUsed(from, await read());
      return { ...rate, program: program / rate.count, postgres: postgres / rate.count };
    };
    const sides = {
      noOp: () => measure(noOp, free.apiKey),
      free: () => measure(service, free.apiKey),
      limited: () => measure(service, limited.apiKey),
    };
    await alternate(sides, 1);
    ctx.log(`${ROUNDS} rounds of ${DURATION_MS} ms, ${WORKERS} connections`);
    const results = await alternate(sides, ROUNDS);
    const { orchestratorUs = 0 } = toCpuPer("call", 1, results.noOp) ?? {};
    ctx.log(`CPU of the no-op procedure: ${orchestratorUs.toFixed(0)} µs a call`);
    const toRateMeasure = (side: "free" | "limited", measure: string, times: number) =>
      toMeasure({
        measure,
        unit: "calls/s",
        ours: results[side].map(({ perSecond }) => perSecond),
        baseline: results.noOp.map(({ perSecond }) => perSecond),
        against: "a no-op procedure",
        bound: { kind: "ratio_at_least", times },
        cpu: toCpuPer("call", 1, results[side]),
      });
    return [
      toRateMeasure("free", "engines.admit, throughput", 0.7),
      toRateMeasure("limited", "engines.admit with a rate limit, throughput", 0.5),
      toMeasure({
        measure: "rate-limited calls of one product",
        unit: "calls/s",
        ours: results.limited.map(({ perSecond }) => perSecond),
        against: "",
        bound: { kind: "at_least", amount: 3_000 },
      }),
    ];
  },
};
