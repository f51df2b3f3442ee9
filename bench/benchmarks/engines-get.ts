import type { Benchmark } from "../benchmark.ts";
import { toUsed } from "../cpu-meter.ts";
import { toCpuPer, toMeasure } from "../measure.ts";
import { repeatCall } from "../repeat-call.ts";
import { alternate } from "../rounds.ts";
import { openService } from "../service.ts";
import { USER } from "../user.ts";

const ROUNDS = 5;
const WORKERS = 16;
const DURATION_MS = 2_000;
const PATH = `/trpc/engines.get?input=${encodeURIComponent(JSON.stringify({ userId: USER }))}`;

export const enginesGet: Benchmark = {
  name: "engines-get",
  run: async (ctx) => {
    await using service = await openService(ctx, { engine: "bench" });
    const { client, apiKey } = await service.openProduct();
    await client.api.engines.provision.mutate({ userId: USER });
    const noOp = await service.openBaseline("no-op");
    const call = { apiKey, signal: ctx.signal, workers: WORKERS, durationMs: DURATION_MS, path: PATH };
    const sides = {
      noOp: () => repeatCall(noOp.url, call),
      ours: async () => {
        const from = await service.readCpu();
        const rate = await repeatCall(service.url, call);
        const { program, postgres } = toUsed(from, await service.readCpu());
        return { ...rate, program: program / rate.count, postgres: postgres / rate.count };
      },
    };
    await alternate(sides, 1);
    ctx.log(`${ROUNDS} rounds of ${DURATION_MS} ms, ${WORKERS} connections`);
    const { ours, noOp: baseline } = await alternate(sides, ROUNDS);
    return [
      toMeasure({
        measure: "engines.get, throughput",
        unit: "calls/s",
        ours: ours.map(({ perSecond }) => perSecond),
        baseline: baseline.map(({ perSecond }) => perSecond),
        against: "a no-op procedure",
        bound: { kind: "ratio_at_least", times: 0.5 },
        cpu: toCpuPer("call", 1, ours),
      }),
    ];
  },
};
