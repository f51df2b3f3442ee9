import { once } from "node:events";
import { connect } from "node:net";
import { createTRPCClient, httpBatchLink } from "@trpc/client";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { AppRouter } from "../../../server/api/routers/router.ts";
import { answer } from "../../rpc/hostile-engine.ts";
import { ADMIN_KEY, type Api, openApi } from "../open-api.ts";

let api: Api;
let key: string;
beforeAll(async () => {
  api = await openApi();
  ({ apiKey: key } = await api.register("served"));
  await api.mutate("engines.provision", { key, input: { userId: "ada" } });
});
afterAll(async () => {
  await api[Symbol.asyncDispose]();
});
beforeEach(() => {
  api.behave("/rpc", answer(200, { result: null }));
});

/** Writes bytes and reads until the server closes the connection. */
async function sendRaw(bytes: string): Promise<string> {
  const socket = connect(Number(new URL(api.url).port), "127.0.0.1");
  const chunks: Buffer[] = [];
  socket.on("data", (chunk) => chunks.push(chunk));
  socket.on("error", () => {});
  socket.write(bytes);
  await once(socket, "close");
  return Buffer.concat(chunks).toString("utf8");
}

async function post(path: string, body: string, headers: Record<string, string> = {}) {
  const response = await fetch(`${api.url}${path}`, {
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json", ...headers },
    body,
  });
  // oxlint-disable-next-line typescript/no-explicit-any
  const parsed: any = JSON.parse(await response.text());
  return { status: response.status, headers: response.headers, body: parsed };
}

describe("requests that reach no procedure", () => {
  test("are INVALID_INPUT with a request id: unknown procedure, broken body, wrong content type, wrong method", async () => {
    const cases: [number, Promise<{ status: number; body: { error: { data: object } } }>][] = [
      [404, post("/trpc/engines.teleport", "{}")],
      [404, post("/trpc/constructor", "{}")],
      [404, post("/trpc/__proto__.toString", "{}")],
      [400, post("/trpc/engines.provision", '{"userId": "ad')],
      [415, post("/trpc/engines.provision", "userId=ada", { "content-type": "text/plain" })],
      [415, post("/trpc/engines.provision", "x", { "content-type": "application/octet-stream" })],
      [405, api.query("engines.provision", { key, input: { userId: "ada" } })],
    ];
    for (const [status, sent] of cases) {
      const reply = await sent;
      expect(reply.status).toBe(status);
      expect(reply.body.error.data).toMatchObject({
        reason: "INVALID_INPUT",
        httpStatus: status,
        requestId: expect.stringMatching(/^[\w.-]{1,64}$/),
      });
    }
  });

  test("a body that is not UTF-8 is refused", async () => {
    const body = Buffer.concat([Buffer.from('{"userId":"'), Buffer.from([0xff, 0xfe]), Buffer.from('"}')]);
    const response = await fetch(`${api.url}/trpc/engines.start`, {
      method: "POST",
      headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
      body,
    });
    expect(response.status).toBe(400);
    expect(await response.text()).toContain('"reason":"INVALID_INPUT"');
  });

  test("a query may be sent by POST", async () => {
    const reply = await post("/trpc/engines.get", '{"userId":"ada"}');
    expect(reply.body.result.data.userId).toBe("ada");
  });

  test("HEAD on a path that is no stream has the status and the headers of GET, and no body", async () => {
    for (const path of ["/healthz", "/readyz", "/v1/openapi.json"]) {
      const get = await fetch(`${api.url}${path}`);
      const head = await fetch(`${api.url}${path}`, { method: "HEAD" });
      expect([head.status, await head.text()], path).toEqual([get.status, ""]);
      const size = Buffer.byteLength(await get.text());
      expect(head.headers.get("content-type"), path).toBe(get.headers.get("content-type"));
      expect(Number(head.headers.get("content-length")), path).toBe(size);
      const refused = await fetch(`${api.url}${path}`, { method: "POST" });
      expect(refused.headers.get("allow"), path).toBe("GET, HEAD, OPTIONS");
      await refused.text();
    }
    expect((await fetch(`${api.url}/trpc/health.live`, { method: "HEAD" })).status).toBe(405);
  });

  test("unknown paths and wrong methods get the error shape of raw routes", async () => {
    for (const [method, path, status] of [
      ["GET", "/nowhere", 404],
      ["POST", "/", 404],
      ["GET", "/trpc", 404],
      ["GET", `/trpc/${"x".repeat(5_000)}`, 414],
      ["DELETE", "/trpc/engines.get", 405],
      ["POST", "/readyz", 405],
      ["GET", "/%zz", 400],
    ] as const) {
      const response = await fetch(`${api.url}${path}`, { method });
      expect(response.status, path.slice(0, 40)).toBe(status);
      const text = await response.text();
      expect(text, path).toContain('"reason":"INVALID_INPUT"');
      expect(text.length, path).toBeLessThan(1_000);
    }
  });

  test("bytes that are no HTTP, and headers that are too large, get an answer and a closed connection", async () => {
    expect(await sendRaw("EHLO example.com\r\n\r\n")).toMatch(/^HTTP\/1.1 400 [^]*"reason":"INVALID_INPUT"/);
    const long = await sendRaw(`GET /healthz HTTP/1.1\r\nhost: x\r\ncookie: ${"x".repeat(20_000)}\r\n\r\n`);
    expect(long).toMatch(/^HTTP\/1.1 431 [^]*"reason":"REQUEST_TOO_LARGE"/);
    const input = encodeURIComponent(JSON.stringify({ userId: "x".repeat(20_000) }));
    const url = await sendRaw(`GET /trpc/engines.get?input=${input} HTTP/1.1\r\nhost: x\r\n\r\n`);
    expect(url).toMatch(/^HTTP\/1.1 431 /);
  });

  test("a malformed Host header does no harm", async () => {
    const raw = await sendRaw(
      "GET /trpc/health.live HTTP/1.1\r\nhost: a:b@[::zz]/?#\r\nconnection: close\r\n\r\n",
    );
    expect(raw).toMatch(/^HTTP\/1.1 200 /);
  });
});

const pad = (bytes: number) =>
  JSON.stringify({ userId: "ada", method: "m", params: { pad: "x".repeat(bytes) } });
const startOf = (bytes: number) =>
  JSON.stringify({
    turnId: "00000000-0000-4000-8000-000000000000",
    userId: "nobody",
    request: { message: "x".repeat(bytes), taskId: "t" },
  });
const headers = () => ({ authorization: `Bearer ${key}` });
const batch = async (count: number) => {
  const paths = Array.from({ length: count }, () => "health.live").join(",");
  return fetch(`${api.url}/trpc/${paths}?batch=1&input=${encodeURIComponent("{}")}`);
};

describe("limits", () => {
  test("a request may have 1 MiB", async () => {
    expect((await post("/trpc/rpc.call", pad(1024 * 1024 - 100))).status).toBe(200);
    const over = await post("/trpc/rpc.call", pad(1024 * 1024));
    expect(over.status).toBe(413);
    expect(over.body.error).toMatchObject({
      code: -32013,
      data: { reason: "REQUEST_TOO_LARGE", code: "PAYLOAD_TOO_LARGE", httpStatus: 413, path: "rpc.call" },
    });
  });

  test("turns.start may have 8 MiB", async () => {
    const within = await post("/trpc/turns.start", startOf(8 * 1024 * 1024 - 1_000));
    expect(within.body.error.data.reason).toBe("ENGINE_NOT_FOUND");
    expect((await post("/trpc/turns.start", startOf(8 * 1024 * 1024))).status).toBe(413);
  });

  test("a batch may have ten calls", async () => {
    const ten = await batch(10);
    expect(ten.status).toBe(200);
    expect(await ten.json()).toHaveLength(10);
    const eleven = await batch(11);
    expect(eleven.status).toBe(400);
    const text = await eleven.text();
    expect(text).toContain('"reason":"INVALID_INPUT"');
    expect(text).toContain(
      "a batch has at most 10 calls: send more batches (maxItems: 10 in tRPC's httpBatchLink)",
    );
  });

  test("tRPC's own batching client splits its calls by the limits that the documentation names", async () => {
    const links = [
      httpBatchLink({ url: `${api.url}/trpc`, maxItems: 10, maxURLLength: 14_000, headers: headers() }),
    ];
    const client = createTRPCClient<AppRouter>({ links });
    const userId = "u".repeat(128);
    const calls = Array.from({ length: 25 }, async () =>
      client.engines.list.query({ cursor: "c".repeat(900), limit: 1 }),
    );
    for (const outcome of await Promise.allSettled(calls)) {
      expect(outcome).toMatchObject({ reason: { data: { reason: "INVALID_INPUT", path: "engines.list" } } });
    }
    const lists = Array.from({ length: 25 }, async () => client.turns.list.query({ userId }));
    expect(await Promise.all(lists)).toHaveLength(25);
  });
});

describe("request ids", () => {
  test("the caller's id is in the reply's header, in the error and in the log", async () => {
    const headers = { "x-request-id": "trace-1.a_b" };
    const reply = await api.query("engines.get", { key, input: { userId: "nobody" }, headers });
    expect(reply.headers.get("x-request-id")).toBe("trace-1.a_b");
    expect(reply.body.error.data.requestId).toBe("trace-1.a_b");
    await expect.poll(() => api.logged.some((line) => line.includes('"requestId":"trace-1.a_b"'))).toBe(true);
  });

  test.each(["", "a b", "x".repeat(65), "a\tb", 'a"b', "ä"])(
    "%j is replaced by a new id",
    async (requestId) => {
      const headers = { "x-request-id": requestId };
      const reply = await api.query("health.live", { headers });
      expect(reply.headers.get("x-request-id")).toMatch(/^[0-9a-f-]{36}$/);
    },
  );
});

test("the log line of a request has caller, path, status and reason, but no query, body or key", async () => {
  const headers = { "x-request-id": "logged-1" };
  await api.query("engines.get", { key, input: { userId: "secret-user" }, headers });
  const find = () => api.logged.find((line) => line.includes("logged-1"));
  await expect.poll(find).toBeDefined();
  const line = JSON.parse(find() ?? "");
  expect(line).toMatchObject({
    message: "request",
    method: "GET",
    path: "/trpc/engines.get",
    status: 404,
    requestId: "logged-1",
    actor: "default",
    reason: "ENGINE_NOT_FOUND",
  });
  const all = api.logged.join("\n");
  for (const secret of ["secret-user", key, ADMIN_KEY, "input="]) expect(all).not.toContain(secret);
});

/** Poll this: on a loaded machine a check may take too long, and then counts as failed. */
async function readinessOf({ url }: Pick<Api, "url">): Promise<[status: number, body: unknown]> {
  const response = await fetch(`${url}/readyz`);
  return [response.status, await response.json()];
}

describe("liveness and readiness", () => {
  test("answer as JSON, without a key", async () => {
    expect((await fetch(`${api.url}/healthz`)).status).toBe(200);
    await expect.poll(() => readinessOf(api)).toMatchObject([200, { ok: true }]);
  });

  test("a runtime that does not answer degrades the service, which stays ready", async () => {
    api.house.runtime.unreachable(true);
    try {
      await expect
        .poll(() => readinessOf(api))
        .toMatchObject([200, { ok: true, subsystems: { runtime: "degraded" } }]);
    } finally {
      api.house.runtime.unreachable(false);
    }
  });
});

test("while calls wait for a slow engine, other calls are served", async () => {
  const held: (() => void)[] = [];
  api.behave("/rpc", (...exchange) => {
    held.push(() => answer(200, { result: "late" })(...exchange));
  });
  const input = { userId: "ada", method: "m" };
  const slow = Array.from({ length: 20 }, async () => api.mutate("rpc.call", { key, input }));
  await expect.poll(() => held.length).toBe(20);
  expect((await api.query("engines.get", { key, input: { userId: "ada" } })).status).toBe(200);
  for (const release of held) release();
  for (const reply of await Promise.all(slow)) {
    expect(reply.body).toMatchObject({ result: { data: { result: "late" } } });
  }
});

describe("a replica that drains or closes", () => {
  test("is not ready, refuses new work, and still serves reads", async () => {
    await using leaving = await openApi();
    const { apiKey, productId } = await leaving.register("leaving");
    const { keyId } = await leaving.issue(productId);
    await leaving.mutate("engines.provision", { key: apiKey, input: { userId: "ada" } });
    leaving.ctx.drain.begin();
    await expect
      .poll(() => readinessOf(leaving))
      .toMatchObject([503, { ok: false, subsystems: { process: "draining", database: "ok" } }]);
    expect((await fetch(`${leaving.url}/healthz`)).status).toBe(200);
    const refused = await leaving.mutate("engines.start", { key: apiKey, input: { userId: "ada" } });
    expect(refused.body.error.data).toMatchObject({ reason: "DRAINING", httpStatus: 503 });
    expect(refused.body.error.data.retryAfterMs).toBeGreaterThan(0);
    const turn = JSON.parse(startOf(1)) as object;
    const turned = await leaving.mutate("turns.start", { key: apiKey, input: turn });
    expect(turned.body.error.data.reason).toBe("DRAINING");
    expect((await leaving.query("engines.get", { key: apiKey, input: { userId: "ada" } })).status).toBe(200);
    const revoked = await leaving.mutate("platformKeys.revoke", { key: ADMIN_KEY, input: { keyId } });
    expect(revoked.status).toBe(200);
  });

  test("answers running calls, closes idle connections, and accepts no new ones", async () => {
    await using leaving = await openApi();
    const { apiKey } = await leaving.register("leaving");
    await leaving.mutate("engines.provision", { key: apiKey, input: { userId: "ada" } });
    let release: (() => void) | undefined;
    leaving.behave("/rpc", (response, request, body) => {
      release = () => answer(200, { result: "late" })(response, request, body);
    });
    const input = { userId: "ada", method: "m" };
    const inFlight = leaving.mutate("rpc.call", { key: apiKey, input });
    await expect.poll(() => release).toBeDefined();
    const idle = connect(Number(new URL(leaving.url).port), "127.0.0.1");
    await once(idle, "connect");
    const closed = leaving.server.close();
    await expect.poll(async () => fetch(`${leaving.url}/healthz`).catch(() => "refused")).toBe("refused");
    release?.();
    expect((await inFlight).body.result.data.result).toBe("late");
    await closed;
    if (!idle.closed) await once(idle, "close");
  });

  test("cuts the calls that have not ended by the deadline", async () => {
    await using leaving = await openApi();
    const { apiKey } = await leaving.register("leaving");
    await leaving.mutate("engines.provision", { key: apiKey, input: { userId: "ada" } });
    let arrived = false;
    leaving.behave("/rpc", () => {
      arrived = true;
    });
    const input = { userId: "ada", method: "m", timeoutMs: 60_000 };
    const inFlight = leaving.mutate("rpc.call", { key: apiKey, input }).catch(() => "cut");
    await expect.poll(() => arrived).toBe(true);
    await leaving.server.close(100);
    expect(await inFlight).toBe("cut");
  });
});

test("an answer that its caller does not take is cut soon after the caller's key is revoked", async () => {
  const { productId } = await api.register("leaky");
  const { keyId, apiKey } = await api.issue(productId);
  await api.mutate("engines.provision", { key: apiKey, input: { userId: "eve" } });
  api.behave("/rpc", answer(200, { result: "r".repeat(1_000_000) }));
  // Together, more than the kernel takes.
  const indexes = Array.from({ length: 10 }, (_, index) => index);
  const body = JSON.stringify(
    Object.fromEntries(indexes.map((index) => [index, { userId: "eve", method: "m" }])),
  );
  const path = `/trpc/${indexes.map(() => "rpc.call").join(",")}`;
  const socket = connect(Number(new URL(api.url).port), "127.0.0.1");
  socket.on("error", () => {});
  const begun = once(socket, "data").then(() => socket.pause());
  const head = ["host: x", `authorization: Bearer ${apiKey}`, "content-type: application/json"];
  socket.write(
    `POST ${path}?batch=1 HTTP/1.1\r\n${head.join("\r\n")}\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
  );
  await begun;
  // A socket that is not read notices its reset by a write. A server skips empty lines before a request.
  const isCut = () => {
    socket.write("\r\n");
    return socket.destroyed;
  };
  expect(isCut()).toBe(false);
  await api.mutate("platformKeys.revoke", { key: ADMIN_KEY, input: { keyId } });
  // Without a revocation it would take a minute.
  await expect.poll(isCut, { timeout: 20_000 }).toBe(true);
});

test("each ended request is measured with its procedure or route, and with its outcome", async () => {
  const ended: [string, string][] = [];
  const subscription = api.ctx.metrics.subscribe({
    requestEnded: ({ route, outcome }) => void ended.push([route, outcome]),
  });
  await api.query("engines.get", { key, input: { userId: "ada" } });
  await api.query("engines.get", { key, input: { userId: "nobody" } });
  await post("/trpc/engines.get,engines.teleport", "{}");
  await fetch(`${api.url}/healthz`);
  await fetch(`${api.url}/made/up`);
  const expected = [
    ["engines.get", "ok"],
    ["engines.get", "ENGINE_NOT_FOUND"],
    ["POST /trpc/:path", "INVALID_INPUT"],
    ["GET /healthz", "ok"],
    ["GET unknown", "INVALID_INPUT"],
  ];
  await expect.poll(() => ended).toEqual(expected);
  subscription[Symbol.dispose]();
});
