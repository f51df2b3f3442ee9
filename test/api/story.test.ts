import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { answer } from "../rpc/hostile-engine.ts";
import { ADMIN_KEY, type Api, openApi } from "./open-api.ts";

let api: Api;
beforeAll(async () => {
  api = await openApi();
});
afterAll(async () => {
  await api[Symbol.asyncDispose]();
});

test("a product's whole life over HTTP: register, provision, call, rotate, reveal, audit, destroy, remove", async () => {
  const { productId, apiKey } = await api.register("story");
  const { apiKey: keysKey } = await api.issue(productId, { scopes: ["keys", "read"] });
  const input = { userId: "ada" };

  const provisioned = await api.mutate("engines.provision", { key: apiKey, input });
  expect(provisioned.status).toBe(200);
  const { engine, apiKey: engineKey } = provisioned.body.result.data;
  expect(engine).toMatchObject({ userId: "ada", status: "running", generation: 1 });
  expect(engineKey).toMatch(/^ehe_/);
  const found = await api.query("engines.get", { key: apiKey, input });
  expect(found.body.result.data.engineId).toBe(engine.engineId);
  const listed = await api.query("engines.list", { key: apiKey });
  expect(listed.body.result.data).toMatchObject({ items: [{ userId: "ada" }], nextCursor: null });

  api.behave("/rpc", (response, request, body) =>
    answer(200, { result: JSON.parse(body) })(response, request, body),
  );
  const called = await api.mutate("rpc.call", { key: apiKey, input: { ...input, method: "skill.list" } });
  expect(called.body.result.data).toEqual({ result: { method: "skill.list", params: {} }, generation: 1 });

  for (const operation of ["engines.stop", "engines.start", "engines.restart"]) {
    expect((await api.mutate(operation, { key: apiKey, input })).status, operation).toBe(200);
  }
  const rotated = await api.mutate("engineKeys.rotate", { key: apiKey, input: { ...input, when: "now" } });
  expect(rotated.body.result.data.apiKey).not.toBe(engineKey);
  const revealed = await api.mutate("engineKeys.reveal", { key: keysKey, input });
  expect(revealed.body.result.data.apiKey).toBe(rotated.body.result.data.apiKey);

  const audit = await api.query("audit.list", { key: apiKey, input: { userId: "ada" } });
  const actions = audit.body.result.data.items.map((row: { action: string }) => row.action);
  expect(actions).toEqual(
    expect.arrayContaining(["engine.provisioned", "engine_key.rotated", "engine_key.revealed"]),
  );
  const verdict = await api.query("audit.verify", { key: apiKey });
  expect(verdict.body.result.data.ok).toBe(true);
  const whole = await api.query("audit.list", { key: ADMIN_KEY });
  expect(whole.body.result.data.items[0]).toMatchObject({ action: "product.registered" });

  const early = await api.mutate("products.remove", { key: ADMIN_KEY, input: { productId } });
  expect(early.body.error.data.reason).toBe("PRODUCT_NOT_EMPTY");
  const destroyed = await api.mutate("engines.destroy", { key: apiKey, input });
  expect(destroyed.body.result.data).toEqual({ engineId: engine.engineId, destroyed: true });
  expect((await api.query("engines.get", { key: apiKey, input })).body.error.data.reason).toBe(
    "ENGINE_NOT_FOUND",
  );
  const removed = await api.mutate("products.remove", { key: ADMIN_KEY, input: { productId } });
  expect(removed.body.result.data).toEqual({ productId, removed: true });
  expect((await api.query("engines.list", { key: apiKey })).body.error.data.reason).toBe("INVALID_KEY");
});

test("removing a product with destroyEngines destroys its engines", async () => {
  const { productId, apiKey } = await api.register("crowded");
  for (const userId of ["a", "b"]) await api.mutate("engines.provision", { key: apiKey, input: { userId } });
  const input = { productId, destroyEngines: true };
  const removed = await api.mutate("products.remove", { key: ADMIN_KEY, input });
  expect(removed.body.result.data).toEqual({ productId, removed: true });
  const product = await api.query("products.get", { key: ADMIN_KEY, input: { productId } });
  expect(product.body.result.data).toMatchObject({ engineCount: 0 });
});

describe("idempotency keys", () => {
  test("a repeated call gets the same reply, with the same plaintext key, and has one effect", async () => {
    const { apiKey } = await api.register("twice");
    const input = { userId: "ada", idempotencyKey: "k-1" };
    const first = await api.mutate("engines.provision", { key: apiKey, input });
    const second = await api.mutate("engines.provision", { key: apiKey, input });
    expect(second.body.result.data.apiKey).toBe(first.body.result.data.apiKey);
    const other = await api.mutate("engines.provision", { key: apiKey, input: { ...input, userId: "bob" } });
    expect(other.body.error.data).toMatchObject({ reason: "IDEMPOTENCY_MISMATCH", httpStatus: 422 });
  });

  test("an operator's idempotency key cannot be used again for another product", async () => {
    await api.register("one");
    await api.register("two");
    const call = async (product: string) =>
      api.mutate("engines.provision", {
        key: ADMIN_KEY,
        input: { product, userId: "x", idempotencyKey: "same" },
      });
    expect((await call("one")).status).toBe(200);
    expect((await call("two")).body.error.data.reason).toBe("IDEMPOTENCY_MISMATCH");
  });
});

describe("the product of a call", () => {
  test("is named by an operator, who appears by name in its audit log", async () => {
    const { apiKey } = await api.register("helped");
    const input = { product: "helped", userId: "ada" };
    expect((await api.mutate("engines.provision", { key: ADMIN_KEY, input })).status).toBe(200);
    expect((await api.query("engines.get", { key: apiKey, input: { userId: "ada" } })).status).toBe(200);
    const audit = await api.query("audit.list", {
      key: apiKey,
      input: { action: "engine.provision_requested" },
    });
    expect(audit.body.result.data.items[0].actor).toMatchObject({ kind: "operator", name: "bootstrap" });
  });

  test("may be a removed product, named by its id, when an operator reads the audit log", async () => {
    const removed = await api.register("fleeting");
    const { productId } = removed;
    await api.issue(productId);
    await api.mutate("products.remove", { key: ADMIN_KEY, input: { productId } });
    await api.register("fleeting");
    const actionsOf = async (product: string) => {
      const { body } = await api.query("audit.list", { key: ADMIN_KEY, input: { product } });
      return body.result.data.items.map((row: { action: string }) => row.action);
    };
    const issued = "platform_key.issued";
    expect([await actionsOf(productId), await actionsOf("fleeting")]).toEqual([[issued, issued], [issued]]);
    const verdict = await api.query("audit.verify", { key: ADMIN_KEY, input: { product: productId } });
    expect(verdict.body.result.data).toMatchObject({ ok: true });
    const stranger = await api.query("audit.list", { key: ADMIN_KEY, input: { product: randomUUID() } });
    expect(stranger.body.error.data.reason).toBe("PRODUCT_NOT_FOUND");
    // A removed product has an audit log, but no other call is possible.
    const reply = await api.query("engines.list", { key: ADMIN_KEY, input: { product: productId } });
    expect(reply.body.error.data.reason).toBe("PRODUCT_NOT_FOUND");
  });

  test("must be named by an operator, and must exist", async () => {
    const none = await api.query("engines.get", { key: ADMIN_KEY, input: { userId: "ada" } });
    expect(none.body.error.data).toMatchObject({ reason: "INVALID_INPUT", issues: [{ path: "product" }] });
    const input = { product: "nowhere", userId: "ada" };
    const absent = await api.query("engines.get", { key: ADMIN_KEY, input });
    expect(absent.body.error.data.reason).toBe("PRODUCT_NOT_FOUND");
  });

  test.each(["UPPER x", null, ["acme"], 7])("cannot be named %j", async (product) => {
    const reply = await api.query("engines.get", { key: ADMIN_KEY, input: { product, userId: "ada" } });
    expect(reply.body.error.data).toMatchObject({ reason: "INVALID_INPUT", issues: [{ path: "product" }] });
  });

  test("must not be named by a platform key, not even its own product", async () => {
    const { apiKey } = await api.register("shy");
    const reply = await api.query("engines.list", { key: apiKey, input: { product: "shy" } });
    expect(reply.body.error.data).toMatchObject({ reason: "INVALID_INPUT", issues: [{ path: "product" }] });
  });
});

test("engines and turns of another product are absent", async () => {
  const mine = await api.register("mine");
  const theirs = await api.register("theirs");
  await api.mutate("engines.provision", { key: theirs.apiKey, input: { userId: "ada" } });
  const key = mine.apiKey;
  const engine = { userId: "ada" };
  const turn = { turnId: randomUUID() };
  const refusals: [string, "query" | "mutate", object, string][] = [
    ["engines.get", "query", engine, "ENGINE_NOT_FOUND"],
    ["engines.start", "mutate", engine, "ENGINE_NOT_FOUND"],
    ["engines.stop", "mutate", engine, "ENGINE_NOT_FOUND"],
    ["engines.restart", "mutate", engine, "ENGINE_NOT_FOUND"],
    ["engines.destroy", "mutate", engine, "ENGINE_NOT_FOUND"],
    ["engineKeys.rotate", "mutate", engine, "ENGINE_NOT_FOUND"],
    ["rpc.call", "mutate", { ...engine, method: "m" }, "ENGINE_NOT_FOUND"],
    ["rpc.getConfig", "query", engine, "ENGINE_NOT_FOUND"],
    ["turns.get", "query", turn, "TURN_NOT_FOUND"],
    ["turns.cancel", "mutate", turn, "TURN_NOT_FOUND"],
    [
      "turns.start",
      "mutate",
      { ...turn, ...engine, request: { message: "hi", taskId: "t" } },
      "ENGINE_NOT_FOUND",
    ],
  ];
  for (const [path, kind, input, reason] of refusals) {
    const reply = await api[kind](path, { key, input });
    expect(reply.body.error?.data, path).toMatchObject({ reason, httpStatus: 404 });
  }
  const listed = await api.query("engines.list", { key });
  expect(listed.body.result.data.items).toEqual([]);
});
