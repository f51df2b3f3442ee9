import { Pool } from "undici";
import { createClient } from "../../client/index.ts";
import { openDatabase } from "../../db/client.ts";
import type { Benchmark } from "../benchmark.ts";
import { toUsed } from "../cpu-meter.ts";
import { measureRate } from "../measure-rate.ts";
import { toCpuPer, toMeasure, type Bound } from "../measure.ts";
import { alternate } from "../rounds.ts";
import { openService } from "../service.ts";
import { USER } from "../user.ts";

const ROUNDS = 5;
const WORKERS = 32;
const DURATION_MS = 3_000;

/**
 * Calls through the API, all in one product, so that they all append to the same audit chain. A change is a transaction
 * that writes and then appends to the chain. A call writes only its audit record. The baseline is the rate at which
 * Postgres, on this disk, can update one contended row.
 */
export const auditedChanges: Benchmark = {
  name: "audited-changes",
  run: async (ctx) => {
    await using service = await openService(ctx, { engine: "bench" });
    const { productId, client } = await service.openProduct();
    await client.api.engines.provision.mutate({ userId: USER });
    const operator = createClient({ url: service.url, key: service.adminKey });
    const scopes = ["keys" as const];
    const { apiKey } = await operator.api.platformKeys.issue.mutate({ productId, name: "reveals", scopes });
    await using database = openDatabase({ url: service.databaseUrl, poolSize: 2, applicationName: "bench" });
    const { raw } = database;
    await raw`create table bench_counter as select 0 as n`;
    const pool = new Pool(service.url, { connections: WORKERS });
    await using _pool = { [Symbol.asyncDispose]: () => pool.close() };

    const post = async (procedure: string, key: string, input: object) => {
      const { statusCode, body } = await pool.request({
        method: "POST",
        path: `/trpc/${procedure}`,
        headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
        body: JSON.stringify(input),
        signal: ctx.signal,
      });
      const text = await body.text();
      if (statusCode !== 200) throw new Error(`${procedure} answered ${statusCode}: ${text}`);
    };
    const run = async (work: () => Promise<unknown>) => {
      const from = await service.readCpu();
      const rate = await measureRate({ workers: WORKERS, durationMs: DURATION_MS, work });
      const { program, postgres } = toUsed(from, await service.readCpu());
      return { ...rate, program: program / rate.count, postgres: postgres / rate.count };
    };
    const sides = {
      counter: () => run(async () => raw`update bench_counter set n = n + 1`),
      issue: () =>
        run(() => post("platformKeys.issue", service.adminKey, { productId, name: "one of many" })),
      reveal: () => run(() => post("engineKeys.reveal", apiKey, { userId: USER })),
    };
    await alternate(sides, 1);
    ctx.log(`${ROUNDS} rounds of ${DURATION_MS} ms, ${WORKERS} connections`);
    const results = await alternate(sides, ROUNDS);
    const toRateMeasure = (measure: string, side: "issue" | "reveal", bound: Bound) =>
      toMeasure({
        measure,
        unit: "/s",
        ours: results[side].map(({ perSecond }) => perSecond),
        baseline: results.counter.map(({ perSecond }) => perSecond),
        against: "one counter row, flushed",
        bound,
        cpu: toCpuPer("change", 1, results[side]),
      });
    return [
      toRateMeasure("audited changes (platformKeys.issue)", "issue", { kind: "at_least", amount: 1_500 }),
      toRateMeasure("audited calls (engineKeys.reveal)", "reveal", { kind: "none" }),
    ];
  },
};
