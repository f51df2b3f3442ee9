import { randomUUID } from "node:crypto";
import { expect } from "vitest";
import { listProcedures } from "../../server/api/openapi/documented-procedure.ts";
import { answer } from "../rpc/hostile-engine.ts";
import { ADMIN_KEY } from "../api/open-api.ts";
import { openRaw } from "../api/raw/open-raw.ts";

export interface FairLimitsInput {
  /** The flooding product's limit. */
  limit: number;
  /** Callers of the flooding product at once, and how often each of them goes through all calls. */
  callers: number;
  rounds: number;
}

/** Every call that a product's key can make: each procedure and each raw route. The inputs may be anything. */
function listCalls(): { method: string; path: string; body?: object }[] {
  const turnId = randomUUID();
  const procedures = listProcedures()
    .filter(({ meta }) => meta.access !== undefined && meta.access !== "operator")
    .map(({ path, type }) =>
      type === "mutation"
        ? { method: "POST", path: `/trpc/${path}`, body: { userId: "flood", turnId } }
        : { method: "GET", path: `/trpc/${path}` },
    );
  const routes = [
    { method: "POST", path: "/v1/engines/flood/execute", body: { message: "hi", task_id: "flood" } },
    { method: "GET", path: `/v1/turns/${turnId}/events` },
    { method: "POST", path: `/v1/turns/${turnId}/cancel` },
    { method: "POST", path: `/v1/turns/${turnId}/respond`, body: { answer: "yes" } },
  ];
  return [...procedures, ...routes];
}

/**
 * One product calls everything without a pause, far beyond its limit. Meanwhile another product calls its engine. No call of
 * the other product fails, and the first product gets no more calls through than its limit allows.
 */
export async function proveFairLimits({ limit, callers, rounds }: FairLimitsInput): Promise<void> {
  await using raw = await openRaw();
  raw.api.behave("/rpc", answer(200, { result: 1 }));
  const { productId, apiKey } = await raw.api.register("flooding");
  const policy = { rateLimitRpm: limit, turnLimitRpm: limit };
  await raw.api.mutate("products.updatePolicy", { key: ADMIN_KEY, input: { productId, policy } });

  const outcomes = new Map<string, number>();
  const calls = listCalls();
  const flood = async () => {
    for (let round = 0; round < rounds; round += 1) {
      for (const { method, path, body } of calls) {
        const reply = await raw.open(method, path, { key: apiKey, ...(body && { body }) });
        const reason = /"reason":"([A-Z_]+)"/.exec(await reply.text())?.[1] ?? "ok";
        outcomes.set(reason, (outcomes.get(reason) ?? 0) + 1);
      }
    }
  };
  const ended = new AbortController();
  const flooding = Promise.all(Array.from({ length: callers }, flood)).finally(() => ended.abort());
  let others = 0;
  while (!ended.signal.aborted) {
    const input = { userId: "ada", method: "nothing" };
    expect(await raw.api.mutate("rpc.call", { key: raw.key, input })).toMatchObject({ status: 200 });
    others += 1;
  }
  await flooding;
  expect(others).toBeGreaterThan(0);
  const total = callers * rounds * calls.length;
  // A flood of more than a minute has more than one window.
  const [window] = await raw.api.ctx.raw<{ used: number }[]>`
    select used from rate_windows where product_id = ${productId} and kind = 'requests'`;
  expect(window?.used).toBeGreaterThan(0);
  expect(window?.used).toBeLessThanOrEqual(limit);
  expect(outcomes.get("RATE_LIMITED")).toBeGreaterThan(total / 2);
  expect([...outcomes.keys()]).not.toContain("INTERNAL");
  expect([...outcomes.keys()]).not.toContain("DATABASE_UNAVAILABLE");
}
