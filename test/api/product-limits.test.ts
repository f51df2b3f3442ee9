import { randomUUID } from "node:crypto";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import type { ProductPolicy } from "../../server/products/product-policy.ts";
import { ADMIN_KEY, type StreamItem } from "./open-api.ts";
import { openRaw, quiet, type Raw, toBody } from "./raw/open-raw.ts";

let raw: Raw;
const open: Reader[] = [];

beforeAll(async () => {
  raw = await openRaw({ maxOpenStreams: 2 });
});
afterAll(async () => raw[Symbol.asyncDispose]());
beforeEach(async () => {
  raw.api.behave("/execute", quiet);
  await setPolicy({});
});
afterEach(async () => {
  for (const reader of open.splice(0)) await reader.leave();
  await expect.poll(countOpen).toBe(0);
});

const countOpen = () => raw.api.ctx.openStreams.countOf(raw.productId);

async function setPolicy(policy: ProductPolicy) {
  const input = { productId: raw.productId, policy };
  const { body } = await raw.api.mutate("products.updatePolicy", { key: ADMIN_KEY, input });
  expect(body.result?.data ?? body).toMatchObject({ product: { policy } });
}

async function start(): Promise<string> {
  const turnId = randomUUID();
  const input = { turnId, userId: "ada", request: { message: "hi", taskId: turnId } };
  const { body } = await raw.api.mutate("turns.start", { key: raw.key, input });
  expect(body.result?.data ?? body).toMatchObject({ turnId, created: true });
  return turnId;
}

interface Reader {
  status: number;
  /** The whole text, once the response has ended. */
  text: Promise<string>;
  leave(): Promise<void>;
}

/** Reads a stream until it ends or the reader leaves. */
async function read(turnId: string, call: Parameters<Raw["open"]>[2] = {}): Promise<Reader> {
  const response = await raw.open("GET", `/v1/turns/${turnId}/events`, call);
  const parts: string[] = [];
  const body = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  const text = (async () => {
    for (;;) {
      const part = await body?.read().catch(() => undefined);
      if (part === undefined || part.done) return parts.join("");
      parts.push(part.value);
    }
  })();
  const reader = { status: response.status, text, leave: async () => body?.cancel().catch(() => undefined) };
  open.push(reader);
  await expect.poll(() => parts.join("")).toContain('"only"');
  return reader;
}

async function refusalOf(items: AsyncIterable<StreamItem>): Promise<StreamItem> {
  for await (const item of items) if (item.event === "serialized-error") return item;
  throw new Error("the stream was not refused");
}

test("one stream above the installation's limit is 429 with Retry-After, and a closed one makes room", async () => {
  const [turn, other] = [await start(), await start()];
  const first = await read(turn);
  await read(turn);
  const refused = await raw.events(other);
  expect(refused.status).toBe(429);
  expect(refused.body.error).toMatchObject({
    reason: "STREAM_LIMIT",
    message: expect.stringContaining("the product may have 2 streams open at once"),
    retryAfterMs: expect.any(Number),
  });
  expect(Number(refused.headers.get("retry-after"))).toBeGreaterThan(0);
  await first.leave();
  await expect.poll(countOpen).toBe(1);
  expect((await read(other)).status).toBe(200);
});

test("over tRPC the refusal is the stream's error", async () => {
  const [turn, other] = [await start(), await start()];
  await read(turn);
  await read(turn);
  const input = { turnId: other };
  const { data } = await refusalOf(raw.api.subscribe("turns.events", { key: raw.key, input }));
  expect(data.data).toMatchObject({
    reason: "STREAM_LIMIT",
    httpStatus: 429,
    retryAfterMs: expect.any(Number),
  });
});

test("a refused execute has begun no turn", async () => {
  const turn = await start();
  await read(turn);
  await read(turn);
  const turnId = randomUUID();
  const refused = await raw.execute({ body: toBody(turnId), headers: { "idempotency-key": turnId } });
  expect([refused.status, refused.body.error.reason]).toEqual([429, "STREAM_LIMIT"]);
  const found = await raw.api.query("turns.get", { key: raw.key, input: { turnId } });
  expect(found.body.error.data.reason).toBe("TURN_NOT_FOUND");
});

test("a policy replaces the installation's limit at once, and a lower one ends no stream", async () => {
  const turns = await Promise.all([start(), start(), start(), start()]);
  await setPolicy({ maxOpenStreams: 3 });
  const [one, two, three, four] = turns;
  const readers = [await read(one), await read(two), await read(three)];
  expect((await raw.events(four)).status).toBe(429);
  await setPolicy({ maxOpenStreams: 0 });
  expect((await raw.events(four)).body.error.message).toContain("may have 0 streams");
  expect(countOpen()).toBe(readers.length);
  const { body } = await raw.api.query("products.get", {
    key: ADMIN_KEY,
    input: { productId: raw.productId },
  });
  expect(body.result.data.usage).toMatchObject({ openStreams: 3, liveTurns: expect.any(Number) });
});

test("a limit of a key leaves room for the product's other keys", async () => {
  const [turn, other] = [await start(), await start()];
  await setPolicy({ maxOpenStreams: 10, maxOpenStreamsPerKey: 1 });
  const { apiKey } = await raw.api.issue(raw.productId);
  await read(turn);
  expect((await raw.events(other)).body.error).toMatchObject({
    reason: "STREAM_LIMIT",
    message: expect.stringContaining("this key may have 1 streams open at once"),
  });
  expect((await read(other, { key: apiKey })).status).toBe(200);
});

test("a reader that comes back before its dead connection is noticed takes that stream's place", async () => {
  const [turn, other] = [await start(), await start()];
  // Nobody has noticed that the first of these has lost its reader.
  const dead = await read(turn);
  const alive = await read(other);
  let back: Response | undefined;
  const comeBack = async () => {
    back = await raw.open("GET", `/v1/turns/${turn}/events`, { headers: { "last-event-id": "1" } });
    return back.status;
  };
  // A new stream keeps its place for two seconds.
  await expect.poll(comeBack, { timeout: 30_000 }).toBe(200);
  expect(await dead.text).not.toContain("enginehouse.end");
  expect(countOpen()).toBe(2);
  await raw.api.mutate("turns.cancel", { key: raw.key, input: { turnId: other } });
  expect(await alive.text).toContain("enginehouse.end");
  await raw.api.mutate("turns.cancel", { key: raw.key, input: { turnId: turn } });
  expect(await back?.text()).toContain("enginehouse.end");
});

test("beyond the policy's engines a provision is 429 QUOTA_EXCEEDED, and the product shows the count", async () => {
  await setPolicy({ maxEngines: 1 });
  const refused = await raw.api.mutate("engines.provision", { key: raw.key, input: { userId: "bob" } });
  expect(refused.status).toBe(429);
  expect(refused.headers.get("retry-after")).toBeNull();
  expect(refused.body.error.data).toMatchObject({ reason: "QUOTA_EXCEEDED", httpStatus: 429 });
  expect(refused.body.error.message).toContain(
    "the product has 1 engine(s), and its policy allows 1 (maxEngines)",
  );
  const { body } = await raw.api.query("products.get", {
    key: ADMIN_KEY,
    input: { productId: raw.productId },
  });
  expect(body.result.data).toMatchObject({ policy: { maxEngines: 1 }, engineCount: 1 });
});

test("beyond the policy's live turns a start is 429 STREAM_LIMIT over tRPC and over plain HTTP", async () => {
  const turn = await start();
  await setPolicy({ maxLiveTurns: 1 });
  const turnId = randomUUID();
  const input = { turnId, userId: "ada", request: { message: "hi", taskId: turnId } };
  const refused = await raw.api.mutate("turns.start", { key: raw.key, input });
  expect([refused.status, refused.body.error.data.reason]).toEqual([429, "STREAM_LIMIT"]);
  expect(Number(refused.headers.get("retry-after"))).toBeGreaterThan(0);
  const execute = await raw.execute({ body: toBody(turnId), headers: { "idempotency-key": turnId } });
  expect([execute.status, execute.body.error.reason]).toEqual([429, "STREAM_LIMIT"]);
  expect(execute.body.error.message).toContain("the product may have 1 live turns at once");
  await raw.api.mutate("turns.cancel", { key: raw.key, input: { turnId: turn } });
});
