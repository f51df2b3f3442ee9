import { afterAll, beforeAll, expect, test } from "vitest";
import { findShownEngines } from "../../db/shown-engines.ts";
import { openHttpServer } from "../../server/api/http/http-server.ts";
import type { AppContext } from "../../server/compose.ts";
import { EngineReads } from "../../server/engines/access/engine-reads.ts";
import { ADMIN_KEY, openApi, type Api } from "./open-api.ts";

let api: Api;
let product: { productId: string; apiKey: string };
beforeAll(async () => {
  api = await openApi();
  product = await api.register("admitting");
});
afterAll(async () => api?.[Symbol.asyncDispose]());

async function admit(input: object, key = product.apiKey) {
  const { status, body } = await api.mutate("engines.admit", { key, input });
  return status === 200 ? body.result.data : { status, reason: body.error.data.reason };
}

async function provision(userId: string): Promise<string> {
  const { body } = await api.mutate("engines.provision", { key: product.apiKey, input: { userId } });
  return body.result.data.engine.engineId;
}

test("a running engine is admitted, and shown as engines.get shows it", async () => {
  await provision("ada");
  const found = await api.query("engines.get", { key: product.apiKey, input: { userId: "ada" } });
  expect(await admit({ userId: "ada" })).toEqual({ admitted: true, engine: found.body.result.data });
});

test("an operator names the product, and another product's engine is absent", async () => {
  await provision("op");
  expect(await admit({ userId: "op", product: "admitting" }, ADMIN_KEY)).toMatchObject({ admitted: true });
  const { apiKey } = await api.register("stranger");
  expect(await admit({ userId: "op" }, apiKey)).toEqual({ admitted: false, reason: "engine_not_found" });
});

test("an engine in every other state is not admitted, with the reason and when to ask again", async () => {
  const engineId = await provision("states");
  const soon = new Date(Date.now() + 30_000).toISOString();
  const states = [
    ["provisioning", "running", null, "engine_provisioning", 1_000],
    ["starting", "running", null, "engine_provisioning", 1_000],
    ["starting", "stopped", null, "engine_stopped", undefined],
    ["sleeping", "running", null, "engine_sleeping", undefined],
    ["stopping", "stopped", null, "engine_stopped", undefined],
    ["stopped", "stopped", null, "engine_stopped", undefined],
    ["failed", "running", soon, "engine_unhealthy", expect.any(Number)],
    ["failed", "running", null, "engine_unhealthy", undefined],
    ["destroying", "destroyed", null, "engine_destroying", 2_000],
  ] as const;
  for (const [status, desired, nextRestartAt, reason, retryAfterMs] of states) {
    // Without a host's name and a due time no reconcile takes the engine.
    await api.ctx
      .raw`update engines set status = ${status}, desired = ${desired}, next_restart_at = ${nextRestartAt},
      runtime_host = 'nowhere' where id = ${engineId}`;
    expect(await admit({ userId: "states" }), `${status} ${desired}`).toEqual({
      admitted: false,
      reason,
      ...(retryAfterMs !== undefined && { retryAfterMs }),
    });
  }
});

test("with autoProvision a missing engine is made once, and the call does not wait for its boot", async () => {
  const calls = Array.from({ length: 10 }, async () => admit({ userId: "new", autoProvision: true }));
  for (const admission of await Promise.all(calls)) {
    // The boot may be over for the last of them.
    if (admission.admitted !== true) {
      expect(admission).toEqual({ admitted: false, reason: "engine_provisioning", retryAfterMs: 1_000 });
    }
  }
  await expect
    .poll(async () => admit({ userId: "new", autoProvision: true }))
    .toMatchObject({ admitted: true });
  const [row] = await api.ctx.raw`select count(*)::int as count from engines where user_id = 'new'`;
  expect(row).toEqual({ count: 1 });
});

test("autoProvision needs the scope lifecycle, and no reply has an engine key", async () => {
  const { apiKey } = await api.issue(product.productId, { scopes: ["turns"] });
  expect(await admit({ userId: "scoped", autoProvision: true }, apiKey)).toMatchObject({
    reason: "SCOPE_MISSING",
  });
  expect(await admit({ userId: "scoped" }, apiKey)).toMatchObject({ reason: "engine_not_found" });
  const { text } = await api.mutate("engines.admit", {
    key: product.apiKey,
    input: { userId: "scoped", autoProvision: true },
  });
  expect(text).not.toMatch(/apiKey|ehe_/);
});

test("inputs are checked after the admission, and a bad one reads no engine", async () => {
  for (const input of [
    {},
    { userId: "" },
    { userId: 7 },
    { userId: "a\0" },
    { userId: "ada", idempotencyKey: "k" },
  ]) {
    expect(await admit(input)).toEqual({ status: 400, reason: "INVALID_INPUT" });
  }
});

test.each([{ policy: {} }, { policy: { rateLimitRpm: 100 } }])(
  "with the policy $policy, a warm admit is one statement",
  async ({ policy }) => {
    const { productId, apiKey } = await api.register(`warm-${Object.keys(policy).length}`);
    await api.mutate("engines.provision", { key: apiKey, input: { userId: "ada" } });
    await api.mutate("products.updatePolicy", { key: ADMIN_KEY, input: { productId, policy } });
    api.ctx.keyStates.clear();
    await admit({ userId: "ada" }, apiKey);
    let statements = 0;
    const shownEngines = new EngineReads(async (users) => {
      statements += 1;
      return findShownEngines(api.ctx.db, users);
    });
    const rateLimits = {
      count: async (call: Parameters<AppContext["rateLimits"]["count"]>[0]) => {
        statements += 1;
        return api.ctx.rateLimits.count(call);
      },
    } as AppContext["rateLimits"];
    // Whatever asks the database for more fails.
    const nothing = undefined as unknown;
    const bare = { ...api.ctx, shownEngines, rateLimits, db: nothing, raw: nothing } as AppContext;
    await using server = await openHttpServer(bare, { host: "127.0.0.1", port: 0 });
    const reply = await fetch(`${server.url}/trpc/engines.admit`, {
      method: "POST",
      headers: { authorization: `Bearer ${apiKey}`, "content-type": "application/json" },
      body: JSON.stringify({ userId: "ada" }),
    });
    expect(await reply.json()).toMatchObject({ result: { data: { admitted: true } } });
    expect(statements).toBe(1);
  },
);
