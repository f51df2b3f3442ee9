import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openDatabase } from "../../db/client.ts";
import { RateLimits } from "../../server/admission/rate-limits.ts";
import { openHttpServer } from "../../server/api/http/http-server.ts";
import { ADMIN_KEY } from "./open-api.ts";
import { openRaw, threeTokens, toBody, type Raw } from "./raw/open-raw.ts";

let raw: Raw;
beforeAll(async () => {
  raw = await openRaw();
  raw.api.behave("/execute", threeTokens);
});
afterAll(async () => raw?.[Symbol.asyncDispose]());

let slugs = 0;

const toStart = (taskId: string) => ({
  turnId: randomUUID(),
  userId: "ada",
  request: { message: "hi", taskId },
});

/** A product with the policy, whose user `ada` has an engine. */
async function addProduct(policy: object): Promise<{ key: string; slug: string; productId: string }> {
  slugs += 1;
  const slug = `limited-${slugs}`;
  const { productId, apiKey } = await raw.api.register(slug);
  await raw.api.mutate("engines.provision", { key: apiKey, input: { userId: "ada" } });
  await raw.api.mutate("products.updatePolicy", { key: ADMIN_KEY, input: { productId, policy } });
  // The state of the key was read before. It is read again within half a second.
  raw.api.ctx.keyStates.clear();
  return { key: apiKey, slug, productId };
}

const toRates = (headers: Headers) => [headers.get("ratelimit-policy"), headers.get("ratelimit")];
const get = async (key: string) => raw.api.query("engines.get", { key, input: { userId: "ada" } });

test("a product without a limit gets no rate headers", async () => {
  const { key } = await addProduct({});
  expect(toRates((await get(key)).headers)).toEqual([null, null]);
});

test("tRPC replies show the limit and what is left, and beyond it answer 429 with Retry-After", async () => {
  const { key } = await addProduct({ rateLimitRpm: 2 });
  const replies = [await get(key), await get(key), await get(key)];
  expect(replies.map(({ status }) => status)).toEqual([200, 200, 429]);
  for (const [index, { headers }] of replies.entries()) {
    const [policy, rate] = toRates(headers);
    expect(policy).toBe('"requests";q=2;w=60');
    expect(rate).toMatch(new RegExp(`^"requests";r=${[1, 0, 0][index]};t=\\d{1,2}$`));
  }
  const [, , refused] = replies;
  const { reason, retryAfterMs } = refused?.body.error.data ?? {};
  expect(reason).toBe("RATE_LIMITED");
  expect(retryAfterMs).toBeGreaterThan(0);
  expect(Number(refused?.headers.get("retry-after"))).toBe(Math.ceil(retryAfterMs / 1_000));
});

test("raw routes show the limit and what is left, and beyond it answer 429 with Retry-After", async () => {
  const { key } = await addProduct({ rateLimitRpm: 2 });
  const first = await raw.execute({ key, body: toBody("task") });
  expect(first).toMatchObject({ status: 200, text: expect.stringContaining("enginehouse.end") });
  expect(toRates(first.headers)).toEqual([
    '"requests";q=2;w=60',
    expect.stringMatching(/^"requests";r=1;t=/),
  ]);
  const turnId = first.headers.get("x-turn-id") ?? "";
  const cancelled = await raw.send("POST", `/v1/turns/${turnId}/cancel`, { key });
  expect(toRates(cancelled.headers)[1]).toMatch(/^"requests";r=0;t=/);
  const refused = await raw.events(turnId, { key });
  expect(refused).toMatchObject({ status: 429, body: { error: { reason: "RATE_LIMITED" } } });
  expect(toRates(refused.headers)[1]).toMatch(/^"requests";r=0;t=/);
  expect(Number(refused.headers.get("retry-after"))).toBeGreaterThan(0);
});

test("a stream's refusal is in the stream, and the limit is in its headers", async () => {
  const { key } = await addProduct({ rateLimitRpm: 1 });
  await get(key);
  const input = encodeURIComponent(JSON.stringify({ turnId: randomUUID() }));
  const reply = await raw.open("GET", `/trpc/turns.events?input=${input}`, { key });
  expect(toRates(reply.headers)).toEqual([
    '"requests";q=1;w=60',
    expect.stringMatching(/^"requests";r=0;t=/),
  ]);
  expect(await reply.text()).toContain('"reason":"RATE_LIMITED"');
});

test("a batch of n calls counts n", async () => {
  const { key } = await addProduct({ rateLimitRpm: 5 });
  const calls = ["engines.get", "engines.list", "engines.get"].join();
  const input = encodeURIComponent(JSON.stringify({ 0: { userId: "ada" }, 2: { userId: "ada" } }));
  const send = async () => {
    const reply = await raw.open("GET", `/trpc/${calls}?batch=1&input=${input}`, { key });
    const body = (await reply.json()) as { result?: object }[];
    return { rate: toRates(reply.headers)[1], answered: body.filter(({ result }) => result).length };
  };
  expect(await send()).toEqual({ rate: expect.stringMatching(/^"requests";r=2;t=/), answered: 3 });
  expect(await send()).toEqual({ rate: expect.stringMatching(/^"requests";r=0;t=/), answered: 2 });
});

test("an operator's calls for a product are not counted", async () => {
  const { key, slug } = await addProduct({ rateLimitRpm: 1 });
  await get(key);
  for (let calls = 0; calls < 3; calls += 1) {
    const reply = await raw.api.query("engines.get", {
      key: ADMIN_KEY,
      input: { userId: "ada", product: slug },
    });
    expect(reply.status).toBe(200);
    expect(toRates(reply.headers)).toEqual([null, null]);
  }
});

test("the limit for turns counts starts on every route, and neither joins nor reads", async () => {
  const { key } = await addProduct({ turnLimitRpm: 3 });
  const first = await raw.execute({ key, body: toBody("one") });
  expect(toRates(first.headers)).toEqual(['"turns";q=3;w=60', expect.stringMatching(/^"turns";r=2;t=/)]);
  const turnId = first.headers.get("x-turn-id") ?? "";
  // With a cursor nothing is started. No other call is counted.
  const headers = { "idempotency-key": turnId, "last-event-id": "1" };
  const resumed = await raw.execute({ key, body: toBody("one"), headers });
  expect(resumed.text).toContain("enginehouse.end");
  expect(toRates(resumed.headers)).toEqual([null, null]);
  expect(toRates((await get(key)).headers)).toEqual([null, null]);

  const started = await raw.api.mutate("turns.start", { key, input: toStart("two") });
  expect(started).toMatchObject({ status: 200, body: { result: { data: { created: true } } } });
  const executed = encodeURIComponent(JSON.stringify(toStart("three")));
  await (await raw.open("GET", `/trpc/turns.execute?input=${executed}`, { key })).text();
  const refused = await raw.api.mutate("turns.start", { key, input: toStart("four") });
  expect(refused).toMatchObject({ status: 429, body: { error: { data: { reason: "RATE_LIMITED" } } } });
  expect(refused.body.error.message).toContain("turnLimitRpm");
  expect(await raw.execute({ key, body: toBody("five") })).toMatchObject({ status: 429 });
});

test("a start that joins a live turn is not counted", async () => {
  const { key } = await addProduct({ turnLimitRpm: 1 });
  const release = Promise.withResolvers<void>();
  raw.api.behave("/execute", (response, request, body) => {
    void release.promise.then(() => threeTokens(response, request, body));
  });
  try {
    const headers = { "idempotency-key": randomUUID() };
    const started = raw.execute({ key, body: toBody("task"), headers });
    await expect.poll(() => raw.api.ctx.turns.size).toBe(1);
    const joined = raw.execute({ key, body: toBody("task"), headers });
    release.resolve();
    expect(await joined).toMatchObject({ status: 200, text: expect.stringContaining("enginehouse.end") });
    expect(await started).toMatchObject({ status: 200 });
  } finally {
    release.resolve();
    raw.api.behave("/execute", threeTokens);
  }
});

test("a call that cannot be counted gets DATABASE_UNAVAILABLE on both wires, and is not let through", async () => {
  const { key } = await addProduct({ rateLimitRpm: 1_000 });
  const nobody = { url: "postgres://nobody@127.0.0.1:1/nothing", poolSize: 1, applicationName: "nobody" };
  await using dead = openDatabase(nobody);
  const ctx = { ...raw.api.ctx, rateLimits: new RateLimits(dead) };
  await using server = await openHttpServer(ctx, { host: "127.0.0.1", port: 0 });
  const authorization = `Bearer ${key}`;
  const refusals = [
    await fetch(`${server.url}/trpc/engines.list`, { headers: { authorization } }),
    await fetch(`${server.url}/v1/turns/${randomUUID()}/cancel`, {
      method: "POST",
      headers: { authorization },
    }),
  ];
  for (const reply of refusals) {
    expect(reply.status).toBe(503);
    expect(await reply.text()).toContain('"reason":"DATABASE_UNAVAILABLE"');
  }
});
