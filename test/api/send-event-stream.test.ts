import { once } from "node:events";
import { request, type IncomingMessage } from "node:http";
import { connect, type AddressInfo } from "node:net";
import { fastify, type FastifyReply } from "fastify";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { sendEventStream } from "../../server/api/send-event-stream.ts";

let send: (reply: FastifyReply) => FastifyReply;
const server = fastify();
let port = 0;
beforeAll(async () => {
  server.get("/", (_request, reply) => {
    reply.header("x-request-id", "r1");
    return send(reply);
  });
  await server.listen({ host: "127.0.0.1", port: 0 });
  ({ port } = server.server.address() as AddressInfo);
});
afterAll(async () => {
  server.server.closeAllConnections();
  await server.close();
});

const encoder = new TextEncoder();
const headers = { "content-type": "text/event-stream" };

/** A source that the test feeds. */
function openSource() {
  const source = Promise.withResolvers<ReadableStreamDefaultController<Uint8Array>>();
  const cancelled = Promise.withResolvers<void>();
  const body = new ReadableStream<Uint8Array>({
    start: (controller) => source.resolve(controller),
    cancel: () => cancelled.resolve(),
  });
  send = (reply) => sendEventStream(reply, new Response(body, { headers }));
  const say = async (...pieces: string[]) => {
    const controller = await source.promise;
    for (const piece of pieces) controller.enqueue(encoder.encode(piece));
  };
  return { say, end: async () => (await source.promise).close(), cancelled: cancelled.promise };
}

async function open(): Promise<IncomingMessage> {
  const sent = request({ host: "127.0.0.1", port, agent: false }).end();
  const [response] = (await once(sent, "response")) as [IncomingMessage];
  return response;
}

const readAll = async () => (await open()).toArray();

test("the pieces of an item leave as one chunk, with the headers of both", async () => {
  const source = openSource();
  const socket = connect(port, "127.0.0.1");
  let text = "";
  socket.on("data", (bytes: Buffer) => (text += bytes.toString()));
  socket.write("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  await source.say("data: 1\n", "id: 1\n", "\n\n");
  await expect.poll(() => text).toContain("\r\n\r\n10\r\ndata: 1\nid: 1\n\n\n\r\n");
  expect(text.toLowerCase()).toContain("x-request-id: r1\r\n");
  expect(text.toLowerCase()).toContain("content-type: text/event-stream\r\n");
  await source.end();
  await once(socket, "close");
  expect(text.endsWith("\r\n0\r\n\r\n")).toBe(true);
});

test("a quiet stream is pinged, however long it is quiet", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  try {
    const source = openSource();
    const opened = open();
    await source.say("data: 1\n\n");
    const response = await opened;
    let text = "";
    response.on("data", (bytes: Buffer) => (text += bytes.toString()));
    const pings = () => text.split("event: ping\ndata: \n\n").length - 1;
    for (const count of [1, 2, 3]) {
      vi.advanceTimersByTime(15_000);
      await vi.waitUntil(() => pings() === count, { interval: 5, timeout: 10_000 });
    }
    await source.end();
    await once(response, "end");
  } finally {
    vi.useRealTimers();
  }
});

test("a reader who does not read stops the source, and gets all of it once they do", async () => {
  const total = 4_000;
  const piece = new Uint8Array(16 * 1024).fill(97);
  let pulled = 0;
  const body = new ReadableStream<Uint8Array>({
    pull: (controller) => {
      if (pulled === total) controller.close();
      else controller.enqueue(piece);
      pulled += 1;
    },
  });
  send = (reply) => sendEventStream(reply, new Response(body, { headers }));
  const response = await open();
  let before = -1;
  await expect
    .poll(() => {
      const isStill = pulled === before;
      before = pulled;
      return isStill;
    })
    .toBe(true);
  expect(pulled).toBeLessThan(total);
  let bytes = 0;
  for await (const chunk of response) bytes += (chunk as Buffer).length;
  expect(bytes).toBe(total * piece.length);
});

test("a reader who leaves cancels the source", async () => {
  const source = openSource();
  const opened = open();
  await source.say("data: 1\n\n");
  (await opened).destroy();
  await source.cancelled;
});

test("a source that breaks breaks the connection, so that nobody takes it for the end", async () => {
  const body = new ReadableStream<Uint8Array>({
    start: (controller) => controller.enqueue(encoder.encode("data: 1\n\n")),
    pull: (controller) => controller.error(new Error("broken")),
  });
  send = (reply) => sendEventStream(reply, new Response(body, { headers }));
  await expect(readAll()).rejects.toThrow();
});

const timers = () => process.getActiveResourcesInfo().filter((kind) => kind === "Timeout").length;

test("a caller who has left before there was a stream leaves nothing behind", async () => {
  const source = openSource();
  const given = send;
  const sent = Promise.withResolvers<number>();
  send = (reply) => {
    reply.hijack();
    reply.raw.once("close", () => {
      const before = timers();
      given(reply);
      sent.resolve(timers() - before);
    });
    return reply;
  };
  const socket = connect(port, "127.0.0.1");
  socket.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n", () => socket.resetAndDestroy());
  expect(await sent.promise).toBeLessThanOrEqual(0);
  await source.cancelled;
});
