import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Api, openApi } from "../api/open-api.ts";

let api: Api;
let mine: { productId: string; apiKey: string };
let theirs: { productId: string; apiKey: string };
const turnId = randomUUID();
const absentTurnId = randomUUID();
beforeAll(async () => {
  api = await openApi();
  [mine, theirs] = [await api.register("mine"), await api.register("theirs")];
  await api.mutate("engines.provision", { key: theirs.apiKey, input: { userId: "ada" } });
  api.behave("/execute", (response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.end('event: thread_lifecycle\ndata: {"phase":"completed"}\n\n');
  });
  const input = { turnId, userId: "ada", request: { message: "hi", taskId: "t" } };
  await api.mutate("turns.start", { key: theirs.apiKey, input });
});
afterAll(async () => {
  await api[Symbol.asyncDispose]();
});

type Row = [path: string, kind: "query" | "mutate", more?: object];
const OF_USER: Row[] = [
  ["engines.get", "query"],
  ["engines.start", "mutate"],
  ["engines.stop", "mutate"],
  ["engines.restart", "mutate"],
  ["engines.destroy", "mutate"],
  ["engineKeys.rotate", "mutate"],
  ["engineKeys.reveal", "mutate"],
  ["rpc.call", "mutate", { method: "m" }],
  ["rpc.getConfig", "query"],
  ["rpc.setConfig", "mutate", { config: {} }],
  ["rpc.reload", "mutate"],
  ["rpc.quotaState", "query"],
  ["rpc.cacheState", "query"],
  ["turns.list", "query"],
  ["turns.respond", "mutate", { taskId: "t", answer: "yes" }],
  ["turns.start", "mutate", { turnId: absentTurnId, request: { message: "hi", taskId: "t" } }],
];
const OF_TURN: Row[] = [
  ["turns.get", "query"],
  ["turns.cancel", "mutate"],
  ["turns.respond", "mutate", { answer: "yes" }],
];

/** The whole reply. All requests have the same id, so that replies can be equal. */
async function ask([path, kind, more = {}]: Row, key: string, id: object): Promise<unknown> {
  const reply = await api[kind](path, {
    key,
    input: { ...more, ...id },
    headers: { "x-request-id": "same" },
  });
  return { status: reply.status, body: reply.body };
}

describe("for ids of another product, replies are equal to those for absent ids", () => {
  test("users", async () => {
    const { apiKey: key } = await api.issue(mine.productId, {
      scopes: ["read", "lifecycle", "turns", "rpc", "keys"],
    });
    for (const row of OF_USER) {
      const foreign = await ask(row, key, { userId: "ada" });
      expect(foreign, row[0]).toEqual(await ask(row, key, { userId: "ida" }));
      if (row[0] !== "turns.list") expect(JSON.stringify(foreign), row[0]).toContain("ENGINE_NOT_FOUND");
    }
  });

  test("turns", async () => {
    for (const row of OF_TURN) {
      const foreign = await ask(row, mine.apiKey, { turnId });
      expect(foreign, row[0]).toEqual(await ask(row, mine.apiKey, { turnId: absentTurnId }));
      expect(JSON.stringify(foreign), row[0]).toContain("TURN_NOT_FOUND");
    }
  });

  test("lists, audit logs and cursors", async () => {
    await api.mutate("engines.provision", { key: theirs.apiKey, input: { userId: "bob" } });
    for (const [path, more] of [
      ["engines.list", {}],
      ["turns.list", { userId: "ada" }],
      ["audit.list", { userId: "ada" }],
    ] as const) {
      const { body } = await api.query(path, { key: theirs.apiKey, input: { ...more, limit: 1 } });
      expect(body.result.data.items, path).toHaveLength(1);
      const cursor = body.result.data.nextCursor ?? undefined;
      for (const input of [more, { ...more, cursor }]) {
        const own = await api.query(path, { key: mine.apiKey, input });
        expect(own.body.result.data.items, path).toEqual([]);
      }
    }
  });

  test("slugs of products", async () => {
    const named = { userId: "ada", product: "theirs" };
    const refused = await api.query("engines.get", { key: mine.apiKey, input: named });
    const absent = await api.query("engines.get", {
      key: mine.apiKey,
      input: { ...named, product: "nobody" },
    });
    expect(refused.body.error.data).toMatchObject({ reason: "INVALID_INPUT", issues: [{ path: "product" }] });
    expect(absent.body.error.data.issues).toEqual(refused.body.error.data.issues);
  });

  test("the other product's engine and turn are unchanged", async () => {
    const engine = await api.query("engines.get", { key: theirs.apiKey, input: { userId: "ada" } });
    expect(engine.body.result.data).toMatchObject({ status: "running", generation: 1 });
    const status = async () =>
      (await api.query("turns.get", { key: theirs.apiKey, input: { turnId } })).body.result.data.status;
    await expect.poll(status).toBe("completed");
  });
});

/** The keys of two new products, so that their engines are in no list of the other tests. */
async function registerTwo(slug: string): Promise<[string, string]> {
  const [one, two] = [await api.register(`${slug}-one`), await api.register(`${slug}-two`)];
  return [one.apiKey, two.apiKey];
}

test("the same idempotency key in two products names two calls", async () => {
  const input = { userId: "twin", idempotencyKey: "same" };
  const keys = await registerTwo("same-key");
  const [first, second] = await Promise.all(
    keys.map(async (key) => api.mutate("engines.provision", { key, input })),
  );
  expect(first?.body.result.data.engine.engineId).not.toBe(second?.body.result.data.engine.engineId);
  expect(first?.body.result.data.apiKey).not.toBe(second?.body.result.data.apiKey);
});

test("the same turn id and task in two products are two turns", async () => {
  const [one, two] = await registerTwo("same-turn");
  const owners = [
    { key: one, userId: "ann" },
    { key: two, userId: "bob" },
  ];
  for (const { key, userId } of owners) {
    await api.mutate("engines.provision", { key, input: { userId } });
    const input = { turnId, userId, request: { message: "hi", taskId: "t" } };
    const { body } = await api.mutate("turns.start", { key, input });
    expect(body.result.data).toMatchObject({ turnId, created: true });
  }
  for (const { key, userId } of owners) {
    const { body } = await api.query("turns.get", { key, input: { turnId } });
    expect(body.result.data.userId).toBe(userId);
  }
});
