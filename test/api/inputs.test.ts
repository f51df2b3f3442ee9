import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { answer } from "../rpc/hostile-engine.ts";
import { ADMIN_KEY, type Api, openApi } from "./open-api.ts";

let api: Api;
let key: string;
let productId: string;
beforeAll(async () => {
  api = await openApi();
  ({ apiKey: key, productId } = await api.register("picky"));
  await api.mutate("engines.provision", { key, input: { userId: "ada" } });
});
afterAll(async () => {
  await api[Symbol.asyncDispose]();
});

const turnId = randomUUID();
const request = { message: "hi", taskId: "t" };

/** A valid input of each query and mutation. Its call disturbs no other test. */
const GOOD: [string, "query" | "mutate", "product" | "operator", () => object][] = [
  ["engines.provision", "mutate", "product", () => ({ userId: "ada" })],
  ["engines.admit", "mutate", "product", () => ({ userId: "ada" })],
  ["engines.get", "query", "product", () => ({ userId: "ada" })],
  ["engines.list", "query", "product", () => ({ limit: 1 })],
  ["engines.start", "mutate", "product", () => ({ userId: "ada" })],
  ["engines.stop", "mutate", "product", () => ({ userId: "nobody" })],
  ["engines.restart", "mutate", "product", () => ({ userId: "nobody" })],
  ["engines.destroy", "mutate", "product", () => ({ userId: "nobody" })],
  ["engineKeys.rotate", "mutate", "product", () => ({ userId: "nobody" })],
  ["engineKeys.reveal", "mutate", "operator", () => ({ userId: "nobody", product: "picky" })],
  ["rpc.call", "mutate", "product", () => ({ userId: "ada", method: "m" })],
  ["rpc.getConfig", "query", "product", () => ({ userId: "nobody" })],
  ["rpc.setConfig", "mutate", "product", () => ({ userId: "nobody", config: {} })],
  ["rpc.reload", "mutate", "product", () => ({ userId: "nobody" })],
  ["rpc.quotaState", "query", "product", () => ({ userId: "nobody" })],
  ["rpc.cacheState", "query", "product", () => ({ userId: "nobody" })],
  ["turns.start", "mutate", "product", () => ({ turnId, userId: "nobody", request })],
  ["turns.get", "query", "product", () => ({ turnId })],
  ["turns.list", "query", "product", () => ({ userId: "ada" })],
  ["turns.cancel", "mutate", "product", () => ({ turnId })],
  ["products.register", "mutate", "operator", () => ({ slug: "picky", name: "Picky" })],
  ["products.get", "query", "operator", () => ({ productId })],
  ["products.list", "query", "operator", () => ({ limit: 1 })],
  ["products.updatePolicy", "mutate", "operator", () => ({ productId, policy: {} })],
  ["products.remove", "mutate", "operator", () => ({ productId: randomUUID() })],
  ["platformKeys.issue", "mutate", "operator", () => ({ productId, name: "n" })],
  ["platformKeys.list", "query", "operator", () => ({ productId })],
  ["platformKeys.revoke", "mutate", "operator", () => ({ keyId: randomUUID() })],
  ["operators.issue", "mutate", "operator", () => ({ name: "n" })],
  ["operators.list", "query", "operator", () => ({})],
  ["operators.revoke", "mutate", "operator", () => ({ keyId: randomUUID() })],
  ["fleet.acceptRuntime", "mutate", "operator", () => ({ reason: "the daemon was replaced" })],
  ["audit.list", "query", "product", () => ({ limit: 1 })],
  ["audit.verify", "query", "product", () => ({})],
  ["health.live", "query", "product", () => ({})],
  ["health.ready", "query", "product", () => ({})],
];

async function reasonOf(
  [path, kind, who]: (typeof GOOD)[number],
  input: unknown,
): Promise<string | undefined> {
  const { body } = await api[kind](path, { key: who === "product" ? key : ADMIN_KEY, input });
  return body.error?.data.reason;
}

test.each(GOOD)("%s accepts a valid input, and refuses it with an unknown field", async (...row) => {
  const [, , , toInput] = row;
  expect(await reasonOf(row, toInput())).not.toBe("INVALID_INPUT");
  expect(await reasonOf(row, { ...toInput(), surprise: 1 })).toBe("INVALID_INPUT");
});

test.each(GOOD)("%s refuses inputs that are not objects", async (...row) => {
  for (const input of [[], "text", 7, null]) expect(await reasonOf(row, input)).toBe("INVALID_INPUT");
});

test("lists and checks need no input", async () => {
  for (const path of ["engines.list", "audit.list", "audit.verify", "health.live"]) {
    expect((await api.query(path, { key })).status, path).toBe(200);
  }
  expect((await api.query("products.list", { key: ADMIN_KEY })).status).toBe(200);
});

describe("a user id", () => {
  const good = ["a", "x".repeat(128), "Ada Löve 🦊", "a/b?c#d%20e", "...", "--", "__proto__", "constructor"];
  const bad = ["", "x".repeat(129), ".", "..", "a\u0000b", "a\nb", "a\u0085b", "\ud800", "a\udc00b", 7, null];
  test.each(good)("may be %j", async (userId) => {
    const { body } = await api.query("engines.get", { key, input: { userId } });
    expect(body.error.data.reason).toBe("ENGINE_NOT_FOUND");
  });
  test.each(bad)("must not be %j", async (userId) => {
    const { body } = await api.query("engines.get", { key, input: { userId } });
    expect(body.error.data).toMatchObject({ reason: "INVALID_INPUT", issues: [{ path: "userId" }] });
  });
});

describe("a field with text that Postgres or a log cannot hold is refused", () => {
  const NUL = "a\u0000b";
  const cases: [string, "query" | "mutate", string, () => object][] = [
    ["engines.provision", "mutate", "image", () => ({ userId: "b", image: NUL })],
    ["engines.provision", "mutate", "idempotencyKey", () => ({ userId: "b", idempotencyKey: NUL })],
    ["engines.list", "query", "cursor", () => ({ cursor: NUL })],
    ["rpc.call", "mutate", "method", () => ({ userId: "ada", method: NUL })],
    [
      "turns.start",
      "mutate",
      "request.taskId",
      () => ({ turnId, userId: "ada", request: { ...request, taskId: NUL } }),
    ],
    ["turns.list", "query", "cursor", () => ({ userId: "ada", cursor: NUL })],
    ["products.register", "mutate", "name", () => ({ slug: "s", name: NUL })],
    ["products.register", "mutate", "slug", () => ({ slug: NUL, name: "n" })],
    ["products.register", "mutate", "policy.image", () => ({ slug: "s", name: "n", policy: { image: NUL } })],
    ["platformKeys.issue", "mutate", "name", () => ({ productId, name: NUL })],
    ["audit.list", "query", "cursor", () => ({ cursor: NUL })],
  ];
  test.each(cases)("%s: %s %s", async (path, kind, field, toInput) => {
    const who = path.startsWith("products") || path.startsWith("platformKeys") ? ADMIN_KEY : key;
    const { body } = await api[kind](path, { key: who, input: toInput() });
    expect(body.error.data).toMatchObject({ reason: "INVALID_INPUT", issues: [{ path: field }] });
  });
});

test.each([
  [
    "turns.start",
    "expectGeneration",
    () => ({ turnId: randomUUID(), userId: "ada", request, expectGeneration: 2 ** 31 }),
  ],
  ["rpc.call", "expectGeneration", () => ({ userId: "ada", method: "m", expectGeneration: 2 ** 31 })],
  [
    "platformKeys.issue",
    "expiresAt",
    () => ({ productId, name: "k", expiresAt: "9999-12-31T23:59:59-23:59" }),
  ],
  ["platformKeys.issue", "expiresAt", () => ({ productId, name: "k", expiresAt: "0000-12-31T23:59:59Z" })],
])("%s: a %s that Postgres cannot hold is refused", async (path, field, toInput) => {
  const who = path.startsWith("platformKeys") ? ADMIN_KEY : key;
  const { body } = await api.mutate(path, { key: who, input: toInput() });
  expect(body.error.data).toMatchObject({ reason: "INVALID_INPUT", issues: [{ path: field }] });
});

test("a cursor that no list returned is refused without a query", async () => {
  const cursor = Buffer.from("x' or 1=1").toString("base64url");
  for (const [path, who, more] of [
    ["engines.list", key, {}],
    ["audit.list", key, {}],
    ["turns.list", key, { userId: "ada" }],
    ["products.list", ADMIN_KEY, {}],
    ["platformKeys.list", ADMIN_KEY, { productId }],
  ] as const) {
    const { body } = await api.query(path, { key: who, input: { ...more, cursor } });
    expect(body.error.data.reason, path).toBe("INVALID_INPUT");
  }
});

const nested = (depth: number): unknown => JSON.parse(`${"[".repeat(depth)}${"]".repeat(depth)}`);

describe("free-form JSON", () => {
  test("reaches the engine unchanged, whatever its names and texts", async () => {
    api.behave("/rpc", (response, req, body) =>
      answer(200, { result: JSON.parse(body).params })(response, req, body),
    );
    const params = {
      text: "nul \u0000, lone \ud800",
      constructor: 1,
      deep: { __proto__x: null },
      list: [1, "2"],
    };
    const { body } = await api.mutate("rpc.call", { key, input: { userId: "ada", method: "m", params } });
    expect(body.result.data.result).toEqual(params);
  });

  test("with a field __proto__ arrives unchanged or is refused, and pollutes no prototype", async () => {
    const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };
    const send = async (path: string, body: string) =>
      fetch(`${api.url}/trpc/${path}`, { method: "POST", headers, body });
    let arrived = "";
    api.behave("/rpc", (response, request, body) => {
      arrived = body;
      answer(200, { result: 1 })(response, request, body);
    });
    const proto = '{"__proto__":{"polluted":1}}';
    const inner = await send("rpc.call", `{"userId":"ada","method":"m","params":{"a":${proto}}}`);
    expect(inner.status).toBe(200);
    expect(arrived).toContain(proto);
    for (const [path, body, field] of [
      ["rpc.call", `{"userId":"ada","method":"m","params":${proto}}`, "params"],
      ["rpc.setConfig", `{"userId":"ada","config":${proto}}`, "config"],
      ["turns.start", `{"turnId":"${randomUUID()}","userId":"ada","request":${proto}}`, "request"],
      ["rpc.call", '{"__proto__":{"x":1},"userId":"ada","method":"m"}', ""],
    ] as const) {
      const refused = await send(path, body);
      expect(await refused.json(), body).toMatchObject({
        error: { data: { reason: "INVALID_INPUT", issues: [{ path: field }] } },
      });
    }
    expect(({} as { polluted?: number }).polluted).toBeUndefined();
  });

  test("is refused if it nests deeper than 64 levels, and any depth gets an answer", async () => {
    const call = async (params: object) =>
      (await api.mutate("rpc.call", { key, input: { userId: "ada", method: "m", params } })).body;
    expect((await call({ list: nested(63) })).result).toBeDefined();
    expect((await call({ list: nested(64) })).error.data.reason).toBe("INVALID_INPUT");
    const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };
    for (const path of ["rpc.call", "engines.get", "turns.start"]) {
      const send = async (body: string) =>
        (await fetch(`${api.url}/trpc/${path}`, { method: "POST", headers, body })).text();
      expect(await send(toDeepCall(45_000)), path).toContain('"reason":"INVALID_INPUT"');
      expect(await send(toDeepCall(200_000)), path).toContain('"reason":"REQUEST_TOO_LARGE"');
    }
  });
});

/** A call whose parameters nest too deep to be made with JSON.stringify. */
function toDeepCall(depth: number): string {
  return `{"userId":"ada","method":"m","params":{"a":${"[".repeat(depth)}${"]".repeat(depth)}}}`;
}

test("a turn's request with a field in the engine's spelling is refused", async () => {
  const input = { turnId, userId: "ada", request: { ...request, task_id: "other" } };
  const { body } = await api.mutate("turns.start", { key, input });
  expect(body.error.data.issues).toEqual([
    { path: "request.task_id", message: expect.stringContaining("camelCase") },
  ]);
});

describe("fields of features that are not built yet", () => {
  test("autoWake may be true or false, because no engine sleeps", async () => {
    for (const autoWake of [true, false]) {
      const input = { userId: "ada", method: "m", autoWake };
      expect((await api.mutate("rpc.call", { key, input })).status).toBe(200);
    }
  });
  test("autoProvision is refused, because it would have no effect", async () => {
    const input = { turnId, userId: "ada", request, autoProvision: true };
    expect((await api.mutate("turns.start", { key, input })).body.error.data.reason).toBe("INVALID_INPUT");
  });
});
