import { once } from "node:events";
import { request, type IncomingMessage } from "node:http";
import { connect, type AddressInfo, type Socket } from "node:net";
import { setImmediate } from "node:timers/promises";
import { fastify, type FastifyReply } from "fastify";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { UnsentAnswers } from "../../../server/api/http/unsent-answers.ts";
import { EventStream, type StreamFormat, toEvent } from "../../../server/api/sse/event-stream.ts";

const FORMAT: StreamFormat = {
  headers: { "content-type": "text/event-stream", "x-own": "1" },
  greeting: "",
  ping: toEvent("ping", ""),
};

let send: (reply: FastifyReply) => FastifyReply;
const server = fastify({ http: { highWaterMark: 16 * 1024 } });
let port = 0;
let unsent = new UnsentAnswers(() => "");
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
async function openStream(format = FORMAT): Promise<EventStream> {
  const opened = Promise.withResolvers<EventStream>();
  send = (reply) => {
    opened.resolve(new EventStream(reply, { unsent, format }));
    return reply;
  };
  return opened.promise;
}

async function open(): Promise<IncomingMessage> {
  const sent = request({ host: "127.0.0.1", port, agent: false }).end();
  const [response] = (await once(sent, "response")) as [IncomingMessage];
  return response;
}

test("an item is sent in one chunk, after the headers of the reply and of the format", async () => {
  const opened = openStream();
  const socket = connect(port, "127.0.0.1");
  let text = "";
  socket.on("data", (bytes: Buffer) => (text += bytes.toString()));
  socket.write("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  const stream = await opened;
  stream.write("data: 1\nid: 1\n\n\n");
  await expect.poll(() => text).toContain("\r\n\r\n10\r\ndata: 1\nid: 1\n\n\n\r\n");
  for (const header of [
    "x-request-id: r1",
    "content-type: text/event-stream",
    "x-own: 1",
    "connection: close",
  ]) {
    expect(text.toLowerCase()).toContain(`${header}\r\n`);
  }
  stream.end();
  stream.write("too late");
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

test("a stream that begins without an event sends its greeting, or else a ping, once", async () => {
  for (const [format, wanted] of [
    [FORMAT, FORMAT.ping],
    [{ ...FORMAT, greeting: ": hello\n\n" }, ": hello\n\n"],
  ] as const) {
    const opened = openStream(format);
    const answered = open();
    const stream = await opened;
    expect(stream.hasBegun).toBe(false);
    stream.begin();
    stream.begin();
    const response = await answered;
    expect(stream.hasBegun).toBe(true);
    stream.write("data: 1\n\n");
    stream.begin();
    stream.end();
    expect((await response.toArray()).join("")).toBe(`${wanted}data: 1\n\n`);
  }
});

test("before its first event a stream can still be answered in another way", async () => {
  send = (reply) => {
    const stream = new EventStream(reply, { unsent, format: FORMAT });
    expect(stream.hasBegun).toBe(false);
    return reply.code(404).send({ error: "absent" });
  };
  const response = await open();
  expect([response.statusCode, (await response.toArray()).join("")]).toEqual([404, '{"error":"absent"}']);
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
      stream.write(PIECE);
      await stream.untilRoom();
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
    while (stream.hasRoom) stream.write(PIECE);
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
    stream.write(PIECE);
    expect(stream.hasRoom).toBe(true);
    await stream.untilRoom();
    stream.end();
    expect(vi.getTimerCount()).toBe(0);
  } finally {
    vi.useRealTimers();
  }
});

/** A connection that never reads. */
function openStalledReader(): { isClosed: () => boolean; socket: Socket } {
  const socket = connect(port, "127.0.0.1");
  socket.pause();
  socket.on("error", () => {});
  let isClosed = false;
  socket.on("close", () => (isClosed = true));
  socket.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  return { socket, isClosed: () => isClosed };
}

async function countConnections(): Promise<number> {
  return new Promise((resolve) => {
    server.server.getConnections((_error, count) => resolve(count));
  });
}

describe("a reader that takes nothing", () => {
  test("makes the stream hold only a bounded number of bytes", async () => {
    const opened = openStream();
    const reader = openStalledReader();
    const stream = await opened;
    const watch = await fillUp(stream);
    expect(unsent.totalBytes).toBeGreaterThan(0);
    expect(unsent.totalBytes).toBeLessThanOrEqual(3 * PIECE.length);
    reader.socket.destroy();
    await expect.poll(() => watch.hasRoom).toBe(true);
    expect(unsent.totalBytes).toBe(0);
  });

  test("is cut after a minute, and not before", async () => {
    const before = await countConnections();
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    try {
      const opened = openStream();
      openStalledReader();
      const watch = await fillUp(await opened);
      vi.advanceTimersByTime(45_000);
      for (let turn = 0; turn < 20; turn += 1) await setImmediate();
      expect(watch.hasRoom).toBe(false);
      vi.advanceTimersByTime(30_000);
      await vi.waitUntil(() => watch.hasRoom, { interval: 5, timeout: 20_000 });
      await vi.waitUntil(async () => (await countConnections()) === before, { interval: 5, timeout: 20_000 });
      expect(vi.getTimerCount()).toBe(0);
    } finally {
      vi.useRealTimers();
    }
  });

  test("is not cut while it takes something now and then", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    try {
      const opened = openStream();
      const { socket, isClosed } = openStalledReader();
      const stream = await opened;
      for (let minute = 0; minute < 4; minute += 1) {
        const watch = await fillUp(stream);
        vi.advanceTimersByTime(45_000);
        socket.resume();
        await vi.waitUntil(() => watch.hasRoom, { interval: 5, timeout: 20_000 });
        socket.pause();
      }
      expect(isClosed()).toBe(false);
      socket.destroy();
      await vi.waitUntil(() => vi.getTimerCount() === 0, { interval: 5, timeout: 20_000 });
    } finally {
      vi.useRealTimers();
    }
  });

  test("is cut within a second after the stream has to close soon", async () => {
    const opened = openStream();
    openStalledReader();
    const stream = await opened;
    const watch = await fillUp(stream);
    stream.closeSoon();
    stream.write("data: the last word\n\n");
    stream.end();
    await expect.poll(() => watch.hasRoom).toBe(true);
    expect(unsent.totalBytes).toBe(0);
  });

  test("is cut early only if it belongs to the product that holds the most", async () => {
    const owners = ["quiet", "loud", "loud", "loud"];
    const sockets: unknown[] = [];
    unsent = new UnsentAnswers((socket) => {
      if (!sockets.includes(socket)) sockets.push(socket);
      return owners[sockets.indexOf(socket)] ?? "";
    }, 200_000);
    try {
      const watches: { hasRoom: boolean }[] = [];
      for (const [index] of owners.entries()) {
        const stream = openStream();
        openStalledReader();
        await fillUp(await stream);
        watches[index] = watchRoom(await stream);
        (await stream).write("b".repeat(64 * 1024));
      }
      await expect.poll(() => watches.map(({ hasRoom }) => hasRoom)).toEqual([false, true, false, false]);
    } finally {
      unsent = new UnsentAnswers(() => "");
    }
  });

  test("is cut early when all connections together hold too much, the longest stalled one first", async () => {
    unsent = new UnsentAnswers(() => "", 100_000);
    try {
      const watches: { hasRoom: boolean }[] = [];
      for (let opened = 0; opened < 4; opened += 1) {
        const stream = openStream();
        openStalledReader();
        watches.push(await fillUp(await stream));
        watches[opened] = watchRoom(await stream);
        (await stream).write("b".repeat(64 * 1024));
      }
      await expect.poll(() => watches.map(({ hasRoom }) => hasRoom)).toEqual([true, true, true, false]);
      expect(unsent.totalBytes).toBeLessThanOrEqual(100_000);
    } finally {
      unsent = new UnsentAnswers(() => "");
    }
  });
});

test("a text larger than the connection's buffer arrives unchanged, and waits in pieces", async () => {
  const opened = openStream();
  const answered = open();
  const stream = await opened;
  const text = "é😀x".repeat(400_000);
  stream.write(text);
  stream.write("data: more\n\n");
  stream.end();
  expect(stream.hasRoom).toBe(false);
  const chunks = (await (await answered).toArray()) as Buffer[];
  expect(Buffer.concat(chunks).toString() === `${text}data: more\n\n`).toBe(true);
});
