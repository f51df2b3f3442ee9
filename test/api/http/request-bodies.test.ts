import { randomUUID } from "node:crypto";
import { connect, type Socket } from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type HttpServer, openHttpServer } from "../../../server/api/http/http-server.ts";
import { createKey } from "../../../server/keys/key-format.ts";
import { judgeConnection } from "../../fire/judge-reply.ts";
import { ADMIN_KEY, type Api, openApi } from "../open-api.ts";

const MIB = 1024 * 1024;
const LARGEST = 8 * MIB - 1;

let api: Api;
let server: HttpServer;
let products: string[];
beforeAll(async () => {
  api = await openApi();
  products = [];
  for (const slug of ["a", "b", "c", "d", "e"]) products.push((await api.register(slug)).apiKey);
  server = await openHttpServer(api.ctx, { host: "127.0.0.1", port: 0, bounds: { bodyBytes: 32 * MIB } });
});
afterAll(async () => {
  await server.close(1_000);
  await api[Symbol.asyncDispose]();
});

const CONTINUE = "HTTP/1.1 100 Continue\r\n\r\n";

interface Client extends Disposable {
  socket: Socket;
  received: () => string;
  replies: () => ReturnType<typeof judgeConnection>;
}

function dial(): Client {
  const socket = connect(Number(new URL(server.url).port), "127.0.0.1");
  let received = "";
  socket.on("error", () => {});
  socket.on("data", (chunk) => {
    received += chunk.toString("latin1");
  });
  return {
    socket,
    received: () => received,
    replies: () => judgeConnection(received.replace(CONTINUE, "")),
    [Symbol.dispose]: () => socket.destroy(),
  };
}

interface Head {
  path?: string;
  key?: string | undefined;
  more: string[];
}
const sized = (length: number) => [`content-length: ${length}`];
const CHUNKED = ["transfer-encoding: chunked"];

function toHead({ path = "turns.start", key, more }: Head): string {
  const authorization = key === undefined ? [] : [`authorization: Bearer ${key}`];
  const lines = [`POST /trpc/${path} HTTP/1.1`, "host: x", "content-type: application/json"];
  return `${[...lines, ...authorization, ...more].join("\r\n")}\r\n\r\n`;
}

/** Sends the head of a request and nothing else. */
function begin(head: Head): Client {
  const client = dial();
  client.socket.write(toHead(head));
  return client;
}

/** Sends the largest request without its last byte. */
async function holdLargest(key: string): Promise<Client> {
  const client = begin({ key, more: [...sized(LARGEST), "expect: 100-continue"] });
  await expect.poll(client.received).toBe(CONTINUE);
  await new Promise<void>((resolve) => client.socket.write(Buffer.alloc(LARGEST - 1, " "), () => resolve()));
  return client;
}

const toTurn = (message: string) =>
  JSON.stringify({ turnId: randomUUID(), userId: "ada", request: { message, taskId: randomUUID() } });
const call = async (key: string, body: string, path = "turns.start") => {
  const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };
  const response = await fetch(`${server.url}/trpc/${path}`, { method: "POST", headers, body });
  const text = await response.text();
  return { status: response.status, headers: response.headers, text, error: JSON.parse(text).error };
};

async function issueRevoked(): Promise<string> {
  const { productId } = await api.register(`revoked-${randomUUID()}`);
  const { keyId, apiKey } = await api.issue(productId);
  await api.mutate("platformKeys.revoke", { key: ADMIN_KEY, input: { keyId } });
  return apiKey;
}

describe("a caller without an accepted key", () => {
  const callers: [string, string, () => string | undefined | Promise<string>][] = [
    ["no key", "INVALID_KEY", () => undefined],
    ["a text that is no key", "INVALID_KEY", () => "nonsense"],
    ["an unknown key", "INVALID_KEY", () => createKey("platform").plaintext],
    ["a revoked key", "KEY_REVOKED", issueRevoked],
  ];
  test.each(callers)("with %s is answered before its body arrives", async (_what, reason, toKey) => {
    const key = await toKey();
    for (const more of [sized(LARGEST), CHUNKED, [...sized(LARGEST), "expect: 100-continue"]]) {
      for (const path of ["turns.start", "rpc.call,turns.cancel?batch=1"]) {
        using client = begin({ path, key, more: path.includes("batch") ? sized(1_000) : more });
        await expect.poll(() => client.replies().length).toBe(1);
        expect(client.replies()[0]).toMatchObject({ status: 401 });
        expect(new Set(client.replies()[0]?.reasons)).toEqual(new Set([reason]));
        expect(client.received()).not.toContain("100 Continue");
      }
    }
  });

  test("gets the refusal of a subscription as its event", async () => {
    using client = begin({ path: "turns.execute", more: sized(LARGEST) });
    await expect.poll(client.received).toMatch(/\r\n0\r\n\r\n$/);
    expect(client.replies()).toEqual([{ status: 200, reasons: ["INVALID_KEY"] }]);
  });

  test("may use the connection again after a large body", async () => {
    using client = begin({ more: sized(LARGEST) });
    client.socket.write(Buffer.alloc(LARGEST, " "));
    client.socket.write("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n");
    await expect.poll(() => client.replies().map(({ status }) => status)).toEqual([401, 200]);
  });

  test("reads the refusal although it sends the whole body first", async () => {
    for (let sent = 0; sent < 5; sent += 1) {
      expect((await call("nonsense", " ".repeat(LARGEST))).error.data.reason).toBe("INVALID_KEY");
    }
  });

  test("is cut off if its body does not end", async () => {
    using client = begin({ more: CHUNKED });
    const chunk = Buffer.from(`100000\r\n${" ".repeat(MIB)}\r\n`);
    const flood = () => {
      while (client.socket.writable && client.socket.write(chunk));
    };
    client.socket.on("drain", flood);
    flood();
    const closed = Promise.withResolvers<void>();
    client.socket.on("close", () => closed.resolve());
    await closed.promise;
    expect(client.socket.bytesWritten).toBeGreaterThan(8 * MIB);
  });

  test("may ask for health with a body, which is not read", async () => {
    using client = begin({ path: "health.live", more: sized(2) });
    client.socket.write("{}");
    await expect.poll(client.replies).toEqual([{ status: 200, reasons: [] }]);
  });
});

test("a client that waits to be asked for its body is asked once its key is known", async () => {
  const body = toTurn("hi");
  using client = begin({ key: products[0], more: [...sized(body.length), "expect: 100-continue"] });
  await expect.poll(client.received).toBe(CONTINUE);
  client.socket.write(body);
  await expect.poll(client.replies).toEqual([{ status: 404, reasons: ["ENGINE_NOT_FOUND"] }]);
  client.socket.write("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n");
  await expect.poll(() => client.replies().length).toBe(2);
});

describe("a body that is too large", () => {
  const limits: [string, number][] = [
    ["turns.start", 8 * MIB],
    ["rpc.call", MIB],
  ];
  test.each(limits)("for %s is refused, and its sender reads the limit", async (path, limit) => {
    const [key = ""] = products;
    const { status, error } = await call(key, " ".repeat(limit + 1), path);
    expect(status).toBe(413);
    expect(error).toMatchObject({ data: { reason: "REQUEST_TOO_LARGE" } });
    expect(error.message).toContain(String(limit));
    expect((await call(key, " ".repeat(limit), path)).error.data.reason).toBe("INVALID_INPUT");
  });

  test("is refused in chunks, too", async () => {
    using client = begin({ path: "rpc.call", key: products[0], more: CHUNKED });
    const chunk = Buffer.from(`100000\r\n${" ".repeat(MIB)}\r\n`);
    client.socket.write(chunk);
    client.socket.write(chunk);
    await expect.poll(client.replies).toEqual([{ status: 413, reasons: ["REQUEST_TOO_LARGE"] }]);
  });
});

describe("the bytes of bodies that are held", () => {
  test("are bounded for each product: large ones wait for room, small ones and other products do not", async () => {
    const [key = "", other = ""] = products;
    using slow = await holdLargest(key);
    const refused = async () => call(key, toTurn("x".repeat(7 * MIB)));
    const { status, error, headers } = await refused();
    expect(status).toBe(429);
    expect(error.data).toMatchObject({ reason: "RATE_LIMITED", retryAfterMs: 1_000 });
    expect(headers.get("retry-after")).toBe("1");
    using inChunks = begin({ key, more: CHUNKED });
    inChunks.socket.write(`700000\r\n${" ".repeat(7 * MIB)}\r\n`);
    await expect.poll(inChunks.replies).toEqual([{ status: 429, reasons: ["RATE_LIMITED"] }]);
    expect((await call(key, toTurn("small"))).status).toBe(404);
    expect((await call(other, toTurn("x".repeat(7 * MIB)))).status).toBe(404);
    slow.socket.destroy();
    await expect.poll(async () => (await refused()).status).toBe(404);
  });

  test("are bounded in all, and small bodies keep their room", async () => {
    const [last = "", ...senders] = products;
    const slow = await Promise.all(senders.slice(0, 3).map(holdLargest));
    try {
      await expect.poll(async () => (await call(last, toTurn("x".repeat(7 * MIB)))).status).toBe(429);
      expect((await call(last, toTurn("small"))).status).toBe(404);
    } finally {
      for (const { socket } of slow) socket.destroy();
    }
    await expect.poll(async () => (await call(last, toTurn("x".repeat(7 * MIB)))).status).toBe(404);
  });
});

/** A turn whose request has this many fields of its own. */
function toKeys(count: number): string {
  const fields = Array.from({ length: count }, (_, index) => [`k${index}`, 0]);
  const request = { message: "m", taskId: "t", ...Object.fromEntries(fields) };
  return JSON.stringify({ turnId: randomUUID(), userId: "ada", request });
}

describe("a request with many JSON values", () => {
  const [most, tooMany] = [24_990, 25_000];

  test("is refused by their number before it is parsed, and below it works", async () => {
    const [key = ""] = products;
    const refused = await call(key, toKeys(tooMany));
    expect(refused.status).toBe(413);
    expect(refused.error.message).toContain("50000");
    expect((await call(key, "[],".repeat(400_000))).status).toBe(413);
    expect((await call(key, toKeys(most))).status).toBe(404);
  });

  test("may have any number of them inside of a text", async () => {
    const [key = ""] = products;
    expect((await call(key, toTurn('[],{"a":1},'.repeat(100_000)))).status).toBe(404);
  });
});
