import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type Api, openApi } from "../api/open-api.ts";
import { answer, behaviours } from "./hostile-engine.ts";

let api: Api;
let key: string;
beforeAll(async () => {
  api = await openApi();
  ({ apiKey: key } = await api.register("calling"));
  await api.mutate("engines.provision", { key, input: { userId: "ada" } });
});
afterAll(async () => {
  await api[Symbol.asyncDispose]();
});
beforeEach(() => {
  api.behave("/rpc", answer(200, { result: null }));
});

const call = async (input: object = {}) =>
  (await api.mutate("rpc.call", { key, input: { userId: "ada", method: "skill.run", ...input } })).body;

const query = async (path: string) => (await api.query(path, { key, input: { userId: "ada" } })).body;

async function auditOf(action: string) {
  const { body } = await api.query("audit.list", { key, input: { userId: "ada", action } });
  return body.result.data.items as { metadata: object; actor: object; durationMs: number }[];
}

describe("rpc.call to an engine that misbehaves", () => {
  const table: [string, Parameters<Api["behave"]>[1], string, number][] = [
    ["401", answer(401, { error: "UNAUTHORIZED", message: "no" }), "ENGINE_ERROR", 502],
    ["409", answer(409, { error: "BUSY", message: "later" }), "ENGINE_BUSY", 409],
    ["500", answer(500, { error: "BROKEN", message: "oh" }), "ENGINE_ERROR", 502],
    ["503", answer(503, { error: "DRAINING", message: "bye" }), "ENGINE_UNHEALTHY", 503],
    ["HTML", behaviours.html, "ENGINE_ERROR", 502],
    ["half a response", behaviours.halfAResponse, "ENGINE_ERROR", 502],
    ["10 MB", behaviours.tenMegabytes, "ENGINE_ERROR", 502],
    ["no answer in time", behaviours.nothing, "ENGINE_TIMEOUT", 504],
    ["a crash during the call", behaviours.crashes, "OUTCOME_UNKNOWN", 409],
    ["no /rpc", (response) => response.writeHead(404).end(), "NOT_SUPPORTED_BY_ENGINE", 422],
  ];
  test.each(table)(
    "%s becomes a typed error, and the engine stays usable",
    async (_what, behaviour, reason, status) => {
      api.behave("/rpc", behaviour);
      const refused = await call({ timeoutMs: reason === "ENGINE_TIMEOUT" ? 3_000 : 5_000 });
      expect(refused.error.data).toMatchObject({ reason, httpStatus: status, path: "rpc.call" });
      expect(JSON.stringify(refused)).not.toMatch(/stack|node_modules|ehe_/);
      api.behave("/rpc", answer(200, { result: 1 }));
      expect((await call()).result.data.result).toBe(1);
    },
  );
});

test("an error that the engine reports reaches the caller with code, message and details", async () => {
  api.behave("/rpc", answer(422, { error: "NO_SKILL", message: "none", details: { skill: "x" } }));
  expect((await call()).error.data.engineError).toEqual({
    status: 422,
    code: "NO_SKILL",
    message: "none",
    details: { skill: "x" },
  });
});

test("a call that expects another generation is not sent", async () => {
  let sent = 0;
  api.behave("/rpc", (...exchange) => {
    sent += 1;
    answer(200, { result: null })(...exchange);
  });
  expect((await call({ expectGeneration: 99 })).error.data.reason).toBe("GENERATION_CHANGED");
  expect(sent).toBe(0);
});

test("a stopped engine is not called", async () => {
  await api.mutate("engines.provision", { key, input: { userId: "resting" } });
  await api.mutate("engines.stop", { key, input: { userId: "resting" } });
  expect((await call({ userId: "resting" })).error.data.reason).toBe("ENGINE_STOPPED");
});

describe("with an idempotency key", () => {
  let sent = 0;
  beforeEach(() => {
    sent = 0;
  });
  const count = (behaviour: Parameters<Api["behave"]>[1]) =>
    api.behave("/rpc", (...exchange) => {
      sent += 1;
      behaviour(...exchange);
    });

  test("a repeated call gets the first answer and is not sent again", async () => {
    count(answer(200, { result: { n: 1 } }));
    const first = await call({ idempotencyKey: "answered" });
    expect(await call({ idempotencyKey: "answered" })).toEqual(first);
    expect(sent).toBe(1);
  });

  test.each([
    ["crashes", behaviours.crashes, "OUTCOME_UNKNOWN"],
    ["nothing", behaviours.nothing, "ENGINE_TIMEOUT"],
    ["halfAResponse", behaviours.halfAResponse, "ENGINE_ERROR"],
    ["html", behaviours.html, "ENGINE_ERROR"],
    ["500 with an envelope", answer(500, { error: "BOOM", message: "oh" }), "ENGINE_ERROR"],
    ["502 with an envelope", answer(502, { error: "BOOM", message: "oh" }), "ENGINE_ERROR"],
  ])(
    "a call whose effect is unknown (%s) says so, and its repetition is OUTCOME_UNKNOWN without being sent",
    async (how, behaviour, reason) => {
      count(behaviour);
      const input = { idempotencyKey: how, timeoutMs: how === "nothing" ? 3_000 : 5_000 };
      const first = await call(input);
      expect(first.error.data.reason).toBe(reason);
      const second = await call(input);
      expect(second.error.data.reason).toBe("OUTCOME_UNKNOWN");
      for (const { message } of [first.error, second.error]) {
        expect(message).toMatch(/effect is unknown: check the engine's state .*new idempotency key/);
      }
      expect(sent).toBe(1);
    },
  );

  test("a call that the engine refused is sent again when it is repeated", async () => {
    count(answer(409, { error: "BUSY", message: "later" }));
    expect((await call({ idempotencyKey: "refused" })).error.data.reason).toBe("ENGINE_BUSY");
    count(answer(200, { result: "now" }));
    expect((await call({ idempotencyKey: "refused" })).result.data.result).toBe("now");
  });
});

describe("typed operations", () => {
  test("send their method and keep unknown fields of the result", async () => {
    const methods: string[] = [];
    const states: Record<string, object> = {
      get_config: { config: { a: 1 }, revision: 3, updated_at: null, extra: [1] },
      quota_state: { turns: 1, limit: { daily: 5 } },
      cache_state: { hit_ratio: 0.5, more: true },
    };
    api.behave("/rpc", (response, request, body) => {
      const { method } = JSON.parse(body) as { method: string };
      methods.push(method);
      answer(200, { result: states[method] })(response, request, body);
    });
    expect((await query("rpc.getConfig")).result.data).toEqual(states["get_config"]);
    expect((await query("rpc.quotaState")).result.data).toEqual(states["quota_state"]);
    expect((await query("rpc.cacheState")).result.data).toEqual(states["cache_state"]);
    expect(methods).toEqual(["get_config", "quota_state", "cache_state"]);
  });

  test("refuse a result that does not have the shape of the contract", async () => {
    for (const result of [null, [], "text", { revision: "three" }]) {
      api.behave("/rpc", answer(200, { result }));
      expect((await query("rpc.getConfig")).error.data.reason).toBe("ENGINE_ERROR");
    }
  });

  test("that only read fail plainly when the answer is lost, without an unknown outcome", async () => {
    api.behave("/rpc", behaviours.crashes);
    expect((await query("rpc.getConfig")).error.data.reason).toBe("ENGINE_UNHEALTHY");
  });

  test("that change something are audited with the names of the config fields, without their values", async () => {
    api.behave("/rpc", answer(200, { result: { revision: 7, reloaded: true } }));
    const config = { model: "m", secrets: { token: "hunter2" } };
    const { body } = await api.mutate("rpc.setConfig", { key, input: { userId: "ada", config } });
    expect(body.result.data).toEqual({ revision: 7, reloaded: true });
    const [row] = await auditOf("rpc.config_set");
    expect(row).toMatchObject({
      actor: { kind: "platform_key" },
      metadata: { outcome: "done", generation: 1, configKeys: ["model", "secrets"] },
    });
    expect(JSON.stringify(row)).not.toContain("hunter2");
    await api.mutate("rpc.reload", { key, input: { userId: "ada" } });
    expect(await auditOf("rpc.reloaded")).toHaveLength(1);
  });

  test("are audited when rpc.call sends them, and when their outcome is unknown", async () => {
    const before = (await auditOf("rpc.config_set")).length;
    await call({ method: "set_config", params: { config: { b: 1 } } });
    api.behave("/rpc", behaviours.crashes);
    await call({ method: "set_config", params: { config: { c: 1 } } });
    const rows = await auditOf("rpc.config_set");
    expect(rows).toHaveLength(before + 2);
    expect(rows[0]?.metadata).toMatchObject({ outcome: "unknown", configKeys: ["c"] });
    expect(rows[1]?.metadata).toMatchObject({ outcome: "done", configKeys: ["b"] });
  });
});

test("a read whose caller has left releases its hold on the engine", async () => {
  const leaving = new AbortController();
  let arrived = false;
  api.behave("/rpc", () => {
    arrived = true;
  });
  const input = encodeURIComponent(JSON.stringify({ userId: "ada" }));
  const sent = fetch(`${api.url}/trpc/rpc.getConfig?input=${input}`, {
    headers: { authorization: `Bearer ${key}` },
    signal: leaving.signal,
  }).catch(() => "left");
  await expect.poll(() => arrived).toBe(true);
  const { body } = await api.query("engines.get", { key, input: { userId: "ada" } });
  const { engineId } = body.result.data as { engineId: string };
  expect(api.ctx.holds.count(engineId)).toBe(1);
  leaving.abort();
  expect(await sent).toBe("left");
  // The call's own timeout is longer than this.
  await expect.poll(() => api.ctx.holds.count(engineId), { timeout: 20_000 }).toBe(0);
});
