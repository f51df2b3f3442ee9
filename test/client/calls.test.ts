import { getEventListeners } from "node:events";
import { TRPCClientError } from "@trpc/client";
import { expect, test } from "vitest";
import { createClient, findReason } from "../../client/index.ts";
import { takePort } from "../support/ports.ts";
import { type Exchange, openFakeService, sendRefusal, sendResult } from "./fake-service.ts";

const retry = { firstDelayMs: 1, maxDelayMs: 5, callForMs: 5_000 };

/** A service that fails once in each of these ways, and then answers. */
async function openFailingService(failures: ((exchange: Exchange) => void)[]) {
  const left = [...failures];
  return openFakeService((exchange) => {
    const fail = left.shift();
    if (fail) fail(exchange);
    else sendResult(exchange.response, { done: true });
  });
}

const drop = ({ response }: Exchange) => {
  response.socket?.resetAndDestroy();
};
const half = ({ response }: Exchange) => {
  response.writeHead(200, { "content-type": "application/json", "content-length": "1000" });
  response.write('{"result":', () => response.socket?.resetAndDestroy());
};
const bare = (status: number) => (exchange: Exchange) => {
  exchange.response.writeHead(status, { "content-type": "text/html" }).end("<h1>gateway</h1>");
};
const bareJson = ({ response }: Exchange) => {
  response.writeHead(503, { "content-type": "application/json" }).end('{"message":"no backend"}');
};
const refuse = (reason: string) => (exchange: Exchange) => sendRefusal(exchange.response, reason);

test("a query is sent again after each kind of network failure", async () => {
  const failures = [drop, half, bare(502), bare(503), bare(504), bareJson];
  await using service = await openFailingService([
    ...failures,
    ...["DRAINING", "RATE_LIMITED", "STREAM_LIMIT", "DATABASE_UNAVAILABLE"].map(refuse),
  ]);
  const { api } = createClient({ url: service.url, key: "key", retry });
  expect(await api.engines.get.query({ userId: "ada" })).toEqual({ done: true });
  expect(service.seen).toHaveLength(11);
});

test("a mutation has one idempotency key for all its attempts", async () => {
  await using service = await openFailingService([drop, bare(502), refuse("IDEMPOTENCY_IN_PROGRESS")]);
  const { api } = createClient({ url: service.url, key: "key", retry });
  expect(await api.engines.provision.mutate({ userId: "ada" })).toEqual({ done: true });
  const keys = service.seen.map(({ input }) => input["idempotencyKey"]);
  expect(keys).toHaveLength(4);
  expect(keys[0]).toMatch(/^[0-9a-f-]{36}$/);
  expect(new Set(keys).size).toBe(1);
});

test("two calls never share a key, and the caller's own key is used unchanged", async () => {
  await using service = await openFailingService([]);
  const { api } = createClient({ url: service.url, key: "key", retry });
  await api.engines.start.mutate({ userId: "ada" });
  await api.engines.start.mutate({ userId: "ada" });
  await api.engines.start.mutate({ userId: "ada", idempotencyKey: "mine" });
  const keys = service.seen.map(({ input }) => input["idempotencyKey"]);
  expect(keys[0]).not.toBe(keys[1]);
  expect(keys[2]).toBe("mine");
});

test("a key that another caller's call is using is refused at once", async () => {
  await using service = await openFailingService([refuse("IDEMPOTENCY_IN_PROGRESS")]);
  const { api } = createClient({ url: service.url, key: "key", retry });
  const starting = api.engines.start.mutate({ userId: "ada", idempotencyKey: "shared" });
  await expect(starting).rejects.toMatchObject({ data: { reason: "IDEMPOTENCY_IN_PROGRESS" } });
  expect(service.seen).toHaveLength(1);
});

test.each([
  ["a broken connection", drop],
  ["half an answer", half],
  ["a gateway's 502", bare(502)],
  ["a gateway's 504", bare(504)],
  ["a database outage", refuse("DATABASE_UNAVAILABLE")],
])("a call into an engine without a key is not sent again after %s", async (_name, failure) => {
  await using service = await openFailingService([failure]);
  const { api } = createClient({ url: service.url, key: "key", retry });
  await expect(api.rpc.call.mutate({ userId: "ada", method: "set" })).rejects.toBeInstanceOf(TRPCClientError);
  expect(service.seen).toHaveLength(1);
  expect(service.seen[0]?.input).toEqual({ userId: "ada", method: "set" });
});

test("a call into an engine is sent again if the replica refused it unhandled, or if it has a key", async () => {
  await using service = await openFailingService([refuse("DRAINING"), refuse("RATE_LIMITED")]);
  const { api } = createClient({ url: service.url, key: "key", retry });
  await api.rpc.call.mutate({ userId: "ada", method: "set" });
  expect(service.seen).toHaveLength(3);
  await using other = await openFailingService([drop]);
  const keyed = createClient({ url: other.url, key: "key", retry });
  await keyed.api.rpc.call.mutate({ userId: "ada", method: "set", idempotencyKey: "once" });
  expect(other.seen).toHaveLength(2);
});

test("a refusal keeps its reason and is not retried", async () => {
  await using service = await openFailingService([refuse("ENGINE_NOT_FOUND"), refuse("ENGINE_UNHEALTHY")]);
  const { api } = createClient({ url: service.url, key: "key", retry });
  for (const reason of ["ENGINE_NOT_FOUND", "ENGINE_UNHEALTHY"]) {
    const error: unknown = await api.engines.get.query({ userId: "ada" }).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(TRPCClientError);
    expect(error).toMatchObject({ data: { reason, requestId: "request-1" } });
    expect(findReason(error)).toBe(reason);
  }
  expect(service.seen).toHaveLength(2);
});

test("the client retries while the service is not running, but only for `callForMs`", async () => {
  const port = await takePort();
  const url = `http://127.0.0.1:${port}`;
  const client = createClient({ url, key: "key", retry: { ...retry, callForMs: 30 } });
  const error: unknown = await client.api.health.live.query().catch((thrown: unknown) => thrown);
  expect(findReason(error)).toBe("CONNECTION_LOST");
  expect(String(error)).toContain(url);

  const patient = createClient({ url, key: "key", retry });
  const calling = patient.api.rpc.call.mutate({ userId: "ada", method: "set" });
  await using _service = await openFakeService(({ response }) => sendResult(response, { late: true }), port);
  expect(await calling).toEqual({ late: true });
});

test("an abort or a close ends the pause between two attempts", async () => {
  const url = `http://127.0.0.1:${await takePort()}`;
  let failures = 0;
  const countingFetch: typeof fetch = async (...request) =>
    fetch(...request).finally(() => {
      failures += 1;
    });
  // Longer than the time limit of the test.
  const slow = { firstDelayMs: 3_600_000, maxDelayMs: 3_600_000, callForMs: 36_000_000 };
  const client = createClient({ url, key: "key", retry: slow, fetch: countingFetch });
  const leaving = new AbortController();
  const calling = client.api.health.live.query(undefined, { signal: leaving.signal });
  await expect.poll(() => failures).toBe(1);
  leaving.abort();
  await expect(calling).rejects.toThrow();
  const closing = client.api.health.live.query();
  await expect.poll(() => failures).toBe(2);
  client.close();
  await expect(closing).rejects.toThrow();
  expect(failures).toBe(2);
});

test("calls that share a signal leave no listener on it, and none is sent after it has aborted", async () => {
  await using service = await openFailingService([refuse("ENGINE_NOT_FOUND")]);
  const client = createClient({ url: service.url, key: "key", retry });
  const shared = new AbortController();
  const call = async () => client.api.engines.get.query({ userId: "ada" }, { signal: shared.signal });
  await expect(call()).rejects.toThrow();
  const calling = Array.from({ length: 20 }, call);
  await expect.poll(() => getEventListeners(shared.signal, "abort")).toHaveLength(1);
  await Promise.all(calling);
  expect(getEventListeners(shared.signal, "abort")).toEqual([]);
  shared.abort();
  await expect(call()).rejects.toThrow();
  expect(service.seen).toHaveLength(21);
});

test("a closed client sends nothing", async () => {
  await using service = await openFailingService([]);
  const client = createClient({ url: service.url, key: "key", retry });
  client.close();
  for (const call of [
    async () => client.api.engines.get.query({ userId: "ada" }),
    async () => client.execute({ userId: "ada", request: { message: "m", taskId: "t" } }).text(),
  ]) {
    const error = await call().catch((thrown: unknown) => thrown);
    expect(findReason(error)).toBe("CLIENT_CLOSED");
  }
  expect(service.seen).toEqual([]);
});

test("a call moves to the next replica at once, and later calls stay there", async () => {
  const dead = `http://127.0.0.1:${await takePort()}`;
  await using draining = await openFakeService(({ response }) => sendRefusal(response, "DRAINING"));
  await using service = await openFailingService([]);
  const slow = { firstDelayMs: 60_000, maxDelayMs: 60_000 };
  const { api } = createClient({ urls: [dead, draining.url, service.url], key: "key", retry: slow });
  await api.engines.get.query({ userId: "ada" });
  await api.engines.get.query({ userId: "ada" });
  expect([draining.seen.length, service.seen.length]).toEqual([1, 2]);
});

test("a malformed key or address is refused before any call, and the message does not contain it", () => {
  for (const key of ["", " ", "ehp_secret\n", "ehp_sécret"]) {
    const create = () => createClient({ url: "http://127.0.0.1:8080", key });
    expect(create, key).toThrow(TypeError);
    expect(create, key).toThrow(/^the client(?: has no key|'s key has a line break)(?!.*cret)/);
  }
  for (const url of ["", "localhost:8080", "/trpc", "ftp://user:secret@enginehouse.internal"]) {
    expect(() => createClient({ url, key: "key" }), url).toThrow(
      /^the client's url does not begin with http:(?!.*secret)/,
    );
  }
  for (const rest of ["?product=acme", "?", "#acme", "#", "user:secret@127.0.0.1"]) {
    const url = rest.endsWith("1") ? `http://${rest}` : `http://127.0.0.1:8080/${rest}`;
    expect(() => createClient({ url, key: "key" }), url).toThrow(
      /^the client's url has a user, a query or a fragment(?!.*secret)/,
    );
  }
  expect(() => createClient({ url: "http://127.0.0.1:8080", key: "a b" }).close()).not.toThrow();
});

test("a base address may have a path, a slash at its end, or `/trpc`", async () => {
  await using service = await openFailingService([]);
  for (const path of ["/internal/", "/internal/trpc", "/internal/trpc/"]) {
    const { api } = createClient({ url: `${service.url}${path}`, key: "key", retry });
    await api.health.live.query();
    expect(service.seen.at(-1)?.url).toBe("/internal/trpc/health.live");
  }
});

test("any number of calls at once is one request each, so no limit of batches can refuse them", async () => {
  await using service = await openFailingService([]);
  const { api } = createClient({ url: service.url, key: "key", retry });
  const calls = Array.from({ length: 25 }, async () => api.engines.get.query({ userId: "ada" }));
  expect(await Promise.all(calls)).toHaveLength(25);
  expect(new Set(service.seen.map(({ url }) => url))).toEqual(new Set(["/trpc/engines.get"]));
  expect(service.seen).toHaveLength(25);
});

test("a message of one megabyte arrives unchanged", async () => {
  await using service = await openFailingService([drop]);
  const client = createClient({ url: service.url, key: "key", retry });
  const message = "é".repeat(512 * 1024);
  const turnId = crypto.randomUUID();
  await client.api.turns.start.mutate({ turnId, userId: "ada", request: { message, taskId: "task" } });
  const sent = service.seen[1]?.input["request"] as { message: string } | undefined;
  expect(sent?.message === message).toBe(true);
});

test("a number that JavaScript cannot hold is sent as it is written, with JSON.rawJSON", async (context) => {
  const { rawJSON } = JSON as { rawJSON?: (text: string) => unknown };
  context.skip(rawJSON === undefined, "this runtime has no JSON.rawJSON");
  const bodies: unknown[] = [];
  const recording: typeof fetch = async (url, init) => {
    bodies.push(init?.body);
    return fetch(url, init);
  };
  await using service = await openFailingService([]);
  const { api } = createClient({ url: service.url, key: "key", retry, fetch: recording });
  const params = { big: rawJSON?.("9007199254740993"), float: rawJSON?.("1.0") };
  await api.rpc.call.mutate({ userId: "ada", method: "m", params });
  expect(bodies).toEqual(['{"userId":"ada","method":"m","params":{"big":9007199254740993,"float":1.0}}']);
});
