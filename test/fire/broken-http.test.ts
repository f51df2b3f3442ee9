import { once } from "node:events";
import { connect } from "node:net";
import * as fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ADMIN_KEY, type Api, openApi } from "../api/open-api.ts";
import { judgeConnection } from "./judge-reply.ts";
import { sendBytes } from "./raw-connection.ts";

let api: Api;
let key: string;
beforeAll(async () => {
  api = await openApi();
  ({ apiKey: key } = await api.register("raw"));
  await api.mutate("engines.provision", { key, input: { userId: "ada" } });
});
afterAll(async () => {
  await api[Symbol.asyncDispose]();
});

const lines = (...all: string[]) => `${all.join("\r\n")}\r\n\r\n`;
const get = (target: string, ...headers: string[]) =>
  lines(`GET ${target} HTTP/1.1`, "host: x", "connection: close", ...headers);
/** With a key, because the body of a caller without one is not read. */
const sender = ["host: x", "connection: close", `authorization: Bearer ${ADMIN_KEY}`];
const post = (body: string, ...headers: string[]) =>
  `${lines("POST /trpc/health.live HTTP/1.1", ...sender, ...headers)}${body}`;
const json = "content-type: application/json";
const sized = (body: string) => `content-length: ${Buffer.byteLength(body)}`;
const batchOf = (count: number) => Array.from({ length: count }, () => "health.live").join(",");

const INVALID = "INVALID_INPUT";
const LARGE = "REQUEST_TOO_LARGE";
/** What is sent, the status of the reply (undefined: no reply), and the reason in it (null: no failure). */
const TABLE: [string, string, number | undefined, string | null][] = [
  ["no HTTP", "EHLO example.com\r\n\r\n", 400, INVALID],
  ["a TLS hello", "\u0016\u0003\u0001\u0002\u0000\u0001\u0000\u0001\u00fc\u0003\u0003", 400, INVALID],
  ["NULs", "\u0000".repeat(100), 400, INVALID],
  ["HTTP/2 with prior knowledge", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, INVALID],
  ["an unknown HTTP version", "GET / HTTP/3.7\r\n\r\n", 400, INVALID],
  ["no Host", lines("GET /healthz HTTP/1.1", "connection: close"), 400, INVALID],
  ["HTTP/1.0 without Host", lines("GET /healthz HTTP/1.0"), 200, null],
  ["a malformed Host", get("/healthz").replace("host: x", "host: a:b@[::zz]/?#"), 200, null],
  ["an unknown expectation", get("/healthz", "expect: miracles"), 200, null],
  ["an upgrade", get("/healthz", "connection: upgrade", "upgrade: websocket"), 200, null],
  ["a CONNECT request", lines("CONNECT a:1 HTTP/1.1", "host: x"), undefined, null],
  ["the target *", lines("OPTIONS * HTTP/1.1", "host: x", "connection: close"), 404, INVALID],
  ["an absolute URL as target", get("http://y/healthz"), 200, null],
  ["a path with parent directories", get("/trpc/../../etc/passwd"), 404, INVALID],
  ["an unsupported method", lines("PURGE /healthz HTTP/1.1", "host: x", "connection: close"), 405, INVALID],
  ["percent signs without digits", get("/%zz"), 400, INVALID],
  ["a cut percent-encoded character", get("/trpc/%E0%A4%A"), 400, INVALID],
  ["an overlong percent-encoded slash", get("/trpc/%c0%af"), 400, INVALID],
  ["a percent-encoded NUL", get("/trpc/health.live%00"), 404, INVALID],
  ["an input with percent signs without digits", get("/trpc/health.live?input=%zz"), 400, INVALID],
  [
    "an input with a cut percent-encoded character",
    get("/trpc/health.live?input=%22%E0%A4%A%22"),
    400,
    INVALID,
  ],
  ["two inputs", get("/trpc/health.live?input=%7B%7D&input=7"), 200, null],
  ["connection parameters that are not JSON", get("/trpc/health.live?connectionParams=%7B"), 400, INVALID],
  ["16 KB of one header", get("/healthz", `cookie: ${"x".repeat(16_384)}`), 431, LARGE],
  ["16 KB of headers", get("/healthz", ...Array.from({ length: 2_800 }, () => "a: b")), 431, LARGE],
  ["16 KB of URL", get(`/trpc/health.live?input=${"x".repeat(16_384)}`), 431, LARGE],
  ["a header without a colon", get("/healthz", "nonsense"), 400, INVALID],
  ["a header that continues in the next line", get("/healthz", "a: b\r\n c"), 400, INVALID],
  ["a NUL in a header", get("/healthz", "a: \u0000"), 400, INVALID],
  ["a line feed alone", "GET /healthz HTTP/1.1\nhost: x\n\n", 400, INVALID],
  ["a length that is negative", post("", json, "content-length: -1"), 400, INVALID],
  ["a length of 30 digits", post("", json, `content-length: ${"9".repeat(30)}`), 400, INVALID],
  ["a length beyond the limit", post("", json, "content-length: 99999999"), 413, LARGE],
  ["two lengths", post("{}", json, "content-length: 2", "content-length: 3"), 400, INVALID],
  [
    "a length and chunks",
    post("0\r\n\r\n", json, "content-length: 5", "transfer-encoding: chunked"),
    400,
    INVALID,
  ],
  ["an unsupported transfer encoding", post("{}", json, "transfer-encoding: gzip"), 400, INVALID],
  ["a chunk whose size is not a number", post("zz\r\n", json, "transfer-encoding: chunked"), 400, INVALID],
  [
    "a chunk that is longer than its size",
    post("1\r\n{}\r\n0\r\n\r\n", json, "transfer-encoding: chunked"),
    400,
    INVALID,
  ],
  [
    "16 KB of chunk extensions",
    post(`1;${"x".repeat(20_000)}\r\n{\r\n`, json, "transfer-encoding: chunked"),
    413,
    LARGE,
  ],
  ["no content type", post("{}", sized("{}")), 415, INVALID],
  ["an empty content type", post("{}", "content-type:", sized("{}")), 415, INVALID],
  ["a form", post("a=b", "content-type: application/x-www-form-urlencoded", sized("a=b")), 415, INVALID],
  [
    "a multipart form",
    post("--x", "content-type: multipart/form-data; boundary=x", sized("--x")),
    415,
    INVALID,
  ],
  ["an octet stream", post("{}", "content-type: application/octet-stream", sized("{}")), 415, INVALID],
  [
    "compressed JSON",
    post("\u001f\u008b", json, "content-encoding: gzip", "content-length: 2"),
    415,
    INVALID,
  ],
  ["a body in latin1", post("{}", `${json}; charset=latin1`, sized("{}")), 415, INVALID],
  ["an empty body", post("", json, "content-length: 0"), 200, null],
  ["a batch of a thousand calls", get(`/trpc/${batchOf(1_000)}?batch=1`), 414, INVALID],
  ["a batch of eleven calls", get(`/trpc/${batchOf(11)}?batch=1`), 400, INVALID],
  ["two paths without batch=1", get(`/trpc/${batchOf(2)}`), 404, INVALID],
  ["a batch of empty paths", get("/trpc/,,,,?batch=1"), 404, INVALID],
  ["a batch whose input is a list", get("/trpc/health.live?batch=1&input=%5B%5D"), 400, INVALID],
  ["a batch with a subscription", get("/trpc/turns.events,health.live?batch=1"), 400, INVALID],
];

test.each(TABLE)("%s gets a reply in our format, or none", async (_what, text, status, reason) => {
  const replies = judgeConnection(await sendBytes(api.url, Buffer.from(text, "latin1")));
  expect(replies.map((reply) => reply.status)).toEqual(status === undefined ? [] : [status]);
  expect([...new Set(replies.flatMap(({ reasons }) => reasons))]).toEqual(reason === null ? [] : [reason]);
  expect((await fetch(`${api.url}/healthz`)).status).toBe(200);
});

test.each([
  ["headers", "GET /healthz HT"],
  ["a body", post("{}", json, "content-length: 10")],
  ["a chunk", post("5\r\n{}", json, "transfer-encoding: chunked")],
])("a client that closes its half of the connection in the middle of %s gets a 400", async (_what, text) => {
  const replies = judgeConnection(await sendBytes(api.url, text, { quietMs: 50 }));
  expect(replies).toEqual([{ status: 400, reasons: [INVALID] }]);
});

const goodRequests = [
  get("/healthz"),
  get("/trpc/health.live,health.ready?batch=1&input=%7B%7D"),
  post("{}", json, "content-length: 2"),
  post("2\r\n{}\r\n0\r\n\r\n", json, "transfer-encoding: chunked"),
  lines("GET /healthz HTTP/1.1", "host: x") + get("/trpc/engines.get", "authorization: Bearer x"),
];
const anyBytes = fc.uint8Array({ minLength: 1, maxLength: 300 });
const damaged = fc
  .record({
    request: fc.constantFrom(...goodRequests),
    at: fc.nat(300),
    skip: fc.nat(20),
    junk: fc.oneof(
      fc.uint8Array({ maxLength: 20 }),
      fc.constantFrom("\r\n", "\n", "\0", ":", " ").map((text) => Buffer.from(text)),
    ),
  })
  .map(({ request, at, skip, junk }) => {
    const bytes = Buffer.from(request, "latin1");
    const from = at % bytes.length;
    return Buffer.concat([bytes.subarray(0, from), junk, bytes.subarray(from + skip)]);
  });

describe("for any bytes, each reply is complete HTTP with a listed reason, and the connection ends", () => {
  test.each([
    ["random bytes", anyBytes],
    ["damaged requests", damaged],
  ])("%s", async (_what, arbitrary: fc.Arbitrary<Uint8Array>) => {
    const volley = fc.array(arbitrary, { minLength: 10, maxLength: 10 });
    const fire = async (all: Uint8Array[]) => {
      const received = await Promise.all(
        all.map(async (bytes) => sendBytes(api.url, bytes, { quietMs: 100 })),
      );
      for (const text of received) judgeConnection(text);
    };
    await fc.assert(fc.asyncProperty(volley, fire), { numRuns: 15 });
    expect((await fetch(`${api.url}/healthz`)).status).toBe(200);
  });
});

test("after a stream, the connection is closed if the caller asked for that", async () => {
  const input = encodeURIComponent('{"turnId":"00000000-0000-4000-8000-000000000000"}');
  const text = get(`/trpc/turns.events?input=${input}`, `authorization: Bearer ${key}`);
  const replies = judgeConnection(await sendBytes(api.url, text));
  expect(replies).toEqual([{ status: 200, reasons: ["TURN_NOT_FOUND"] }]);
});

describe("a connection that still waits for a reply", () => {
  test("gets this reply whole or not at all, and nothing else, when nonsense follows the request", async () => {
    const input = encodeURIComponent(JSON.stringify({ userId: "ada" }));
    const first = `GET /trpc/engines.get?input=${input} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${key}\r\n\r\n`;
    const replies = judgeConnection(await sendBytes(api.url, `${first}nonsense\r\n\r\n`, { quietMs: 100 }));
    // The connection is cut, or the request is answered. A reply to the nonsense would be taken for its answer.
    expect([[], [200]]).toContainEqual(replies.map(({ status }) => status));
  });
});

/** Closes the connection after the server has accepted the request, in the middle of the body. */
async function leaveUpload(path: string, requestId: string): Promise<void> {
  const socket = connect(Number(new URL(api.url).port), "127.0.0.1");
  const owner = [`authorization: Bearer ${key}`, `x-request-id: ${requestId}`];
  const upload = [json, "content-length: 500000", "expect: 100-continue"];
  socket.write(lines(`POST /trpc/${path} HTTP/1.1`, "host: x", ...owner, ...upload));
  await once(socket, "data");
  socket.write(" ".repeat(200_000), () => socket.destroy());
  await once(socket, "close");
}

test("a client that leaves in the middle of its upload causes neither a warning nor an error", async () => {
  const before = api.logged.length;
  const ids = Array.from({ length: 30 }, (_, index) => `leaves-${index}`);
  await Promise.all(ids.map(async (id, index) => leaveUpload(index % 2 ? "rpc.call" : "turns.start", id)));
  const noticed = () => ids.filter((id) => api.logged.some((line) => line.includes(`"requestId":"${id}"`)));
  await expect.poll(noticed).toEqual(ids);
  expect((await api.query("engines.get", { key, input: { userId: "ada" } })).status).toBe(200);
  expect(api.logged.slice(before).filter((line) => /"level":"(?:error|warn)"/.test(line))).toEqual([]);
});
