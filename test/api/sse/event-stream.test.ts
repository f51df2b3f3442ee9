import { once } from "node:events";
import { request, type IncomingMessage } from "node:http";
import { connect, type AddressInfo } from "node:net";
import { setImmediate } from "node:timers/promises";
import { fastify, type FastifyReply } from "fastify";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { EventStream } from "../../../server/api/sse/event-stream.ts";

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

/** Opens the stream of the next request, which the test then writes to. */
async function openStream(): Promise<EventStream> {
  const opened = Promise.withResolvers<EventStream>();
  send = (reply) => {
    opened.resolve(new EventStream(reply));
    return reply;
  };
  return opened.promise;
}

async function open(): Promise<IncomingMessage> {
  const sent = request({ host: "127.0.0.1", port, agent: false }).end();
  const [response] = (await once(sent, "response")) as [IncomingMessage];
  return response;
}

test("an item is sent in one chunk, after the headers of the reply and of tRPC", async () => {
  const opened = openStream();
  const socket = connect(port, "127.0.0.1");
  let text = "";
  socket.on("data", (bytes: Buffer) => (text += bytes.toString()));
  socket.write("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  const stream = await opened;
  stream.write("data: 1\nid: 1\n\n\n");
  await expect.poll(() => text).toContain("\r\n\r\n10\r\ndata: 1\nid: 1\n\n\n\r\n");
  for (const header of ["x-request-id: r1", "content-type: text/event-stream", "connection: close"]) {
    expect(text.toLowerCase()).toContain(`${header}\r\n`);
  }
  stream.end();
  expect(stream.write("too late")).toBe(true);
  await once(socket, "close");
  expect(text.endsWith("\r\n0\r\n\r\n")).toBe(true);
});

test("a stream that ends without an event is an empty event stream", async () => {
  const opened = openStream();
  const response = open();
  (await opened).end();
  const { statusCode, headers } = await response;
  expect([statusCode, headers["content-type"], headers["x-request-id"]]).toEqual([
    200,
    "text/event-stream",
    "r1",
  ]);
  expect(await (await response).toArray()).toEqual([]);
});

test("a quiet stream gets a ping every 15 seconds", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  try {
    const opened = openStream();
    const answered = open();
    const stream = await opened;
    stream.write("data: 1\n\n");
    const response = await answered;
    let text = "";
    response.on("data", (bytes: Buffer) => (text += bytes.toString()));
    const pings = () => text.split("event: ping\ndata: \n\n").length - 1;
    for (const count of [1, 2, 3]) {
      vi.advanceTimersByTime(15_000);
      await vi.waitUntil(() => pings() === count, { interval: 5, timeout: 10_000 });
    }
    stream.end();
    await once(response, "end");
  } finally {
    vi.useRealTimers();
  }
});

const PIECE = "a".repeat(16 * 1024);

test("a slow reader makes the writer wait, and later gets every byte", async () => {
  const total = 4_000;
  let written = 0;
  const opened = openStream();
  const answered = open();
  const stream = await opened;
  const writing = (async () => {
    while (written < total) {
      written += 1;
      if (!stream.write(PIECE)) await stream.untilRoom();
    }
    stream.end();
  })();
  const response = await answered;
  let before = -1;
  await expect
    .poll(() => {
      const isStill = written === before;
      before = written;
      return isStill;
    })
    .toBe(true);
  expect(written).toBeLessThan(total);
  let bytes = 0;
  for await (const chunk of response) bytes += (chunk as Buffer).length;
  expect(bytes).toBe(total * PIECE.length);
  await writing;
});

function watchRoom(stream: EventStream): { hasRoom: boolean } {
  const watch = { hasRoom: false };
  void (async () => {
    await stream.untilRoom();
    watch.hasRoom = true;
  })();
  return watch;
}

/** Writes until the kernel's buffers are full, which is seen within a few turns of the event loop. Then only a reader makes room. */
async function fillUp(stream: EventStream): Promise<{ hasRoom: boolean }> {
  for (;;) {
    while (stream.write(PIECE));
    const watch = watchRoom(stream);
    for (let turn = 0; turn < 20; turn += 1) await setImmediate();
    if (!watch.hasRoom) return watch;
  }
}

test("a reader that leaves releases the writer and the ping timer", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  try {
    const opened = openStream();
    const answered = open();
    const stream = await opened;
    const watch = await fillUp(stream);
    const response = await answered;
    expect(vi.getTimerCount()).toBe(1);
    response.destroy();
    await expect.poll(() => watch.hasRoom).toBe(true);
    expect(vi.getTimerCount()).toBe(0);
    // A write after the reader has left neither fails nor waits.
    expect(stream.write(PIECE)).toBe(true);
    await stream.untilRoom();
    stream.end();
    expect(vi.getTimerCount()).toBe(0);
  } finally {
    vi.useRealTimers();
  }
});
