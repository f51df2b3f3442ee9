import { connect, type Socket } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type HttpServer, openHttpServer } from "../../server/api/http/http-server.ts";
import { ADMIN_KEY, type Api, openApi } from "../api/open-api.ts";
import { judgeConnection } from "./judge-reply.ts";

let api: Api;
let server: HttpServer;
beforeAll(async () => {
  api = await openApi();
  const timeouts = { headersMs: 300, requestMs: 600, checkMs: 50 };
  server = await openHttpServer(api.ctx, { host: "127.0.0.1", port: 0, timeouts });
});
afterAll(async () => {
  await server.close();
  await api[Symbol.asyncDispose]();
});

function dial(): Socket {
  const socket = connect(Number(new URL(server.url).port), "127.0.0.1");
  socket.on("error", () => {});
  return socket;
}

/** Sends a first piece at once, and then one byte every few milliseconds until the server closes the connection. */
async function drip(first: string, byte: string): Promise<string> {
  const socket = dial();
  let received = "";
  socket.on("data", (chunk) => {
    received += chunk.toString("latin1");
  });
  socket.write(first);
  const dripping = setInterval(() => byte !== "" && socket.writable && socket.write(byte), 10);
  const closed = Promise.withResolvers<string>();
  socket.on("close", () => {
    clearInterval(dripping);
    closed.resolve(received);
  });
  return closed.promise;
}

const sender = `authorization: Bearer ${ADMIN_KEY}\r\ncontent-type: application/json\r\n`;
const body = `${sender}content-length: 100000\r\n`;
const slow: [string, string, string][] = [
  ["nothing", "", ""],
  ["a request line that does not end", "GET /", "x"],
  ["headers that do not end", "GET /healthz HTTP/1.1\r\nhost: x\r\n", "a: b\r\n"],
  ["a body that does not come", `POST /trpc/rpc.call HTTP/1.1\r\nhost: x\r\n${body}\r\n`, ""],
  ["a body byte by byte", `POST /trpc/rpc.call HTTP/1.1\r\nhost: x\r\n${body}\r\n`, " "],
  [
    "chunks byte by byte",
    `POST /trpc/turns.start HTTP/1.1\r\nhost: x\r\n${sender}transfer-encoding: chunked\r\n\r\n`,
    "1\r\n \r\n",
  ],
];

test.each(slow)(
  "a client that sends %s gets a 408, and its connection is closed",
  async (_what, first, byte) => {
    const replies = judgeConnection(await drip(first, byte));
    const expected = [{ status: 408, reasons: ["INVALID_INPUT"] }];
    // A client that still writes to the closed connection may lose the reply.
    if (byte === "") expect(replies).toEqual(expected);
    else expect([expected, []]).toContainEqual(replies);
  },
);

const askForHealth = async () => (await fetch(`${server.url}/trpc/health.live`)).status;

test("while two hundred slow clients send, other clients are served", async () => {
  const all = Array.from({ length: 200 }, async (_, index) => {
    const [, first, byte] = slow[index % slow.length] ?? ["", "", ""];
    return drip(first, byte);
  });
  // Poll: on a loaded machine a connection may time out before its request is read. The client tries again.
  for (let served = 0; served < 20; served += 1) await expect.poll(askForHealth).toBe(200);
  for (const received of await Promise.all(all)) judgeConnection(received);
});

/** A client that sends a request at once, and another one at each `ask()`. */
function openClient(): { socket: Socket; ask: () => void; replies: () => number[] } {
  const socket = dial();
  let received = "";
  socket.on("data", (chunk) => {
    received += chunk.toString("latin1");
  });
  const ask = () => void socket.write("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n");
  ask();
  return { socket, ask, replies: () => judgeConnection(received).map(({ status }) => status) };
}

test("a client that pauses between two requests is not slow", async () => {
  let client = openClient();
  const firstReplies = () => {
    // On a loaded machine the first connection may time out, as above.
    if (client.socket.closed) client = openClient();
    return client.replies();
  };
  await expect.poll(firstReplies).toEqual([200]);
  // Pause for longer than a slow client may take.
  await drip("", "");
  client.ask();
  await expect.poll(client.replies).toEqual([200, 200]);
  client.socket.destroy();
});
