import { once } from "node:events";
import { createServer, type ServerResponse } from "node:http";
import { connect, type AddressInfo, type Socket } from "node:net";
import { expect, test } from "vitest";
import { SseWriter } from "../../engine/sse-writer.ts";

interface OpenStream extends AsyncDisposable {
  readonly res: ServerResponse;
  readonly writer: SseWriter;
  /** The reader's socket, which reads nothing until it is resumed. */
  readonly socket: Socket;
}

async function openStream(hurry?: AbortSignal): Promise<OpenStream> {
  const server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const socket = connect((server.address() as AddressInfo).port, "127.0.0.1");
  socket.pause();
  socket.write("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
  const [, res] = (await once(server, "request")) as [unknown, ServerResponse];
  return {
    res,
    socket,
    writer: new SseWriter(res, hurry),
    [Symbol.asyncDispose]: async () => {
      socket.destroy();
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

const MEGABYTE = JSON.stringify("x".repeat(1024 * 1024));

test("a writer waits for a reader that does not read, and is free when the reader leaves", async () => {
  await using stream = await openStream();
  let sent = 0;
  let mostBuffered = 0;
  const writing = (async () => {
    for (; sent < 64; sent += 1) {
      await stream.writer.send("text_delta", MEGABYTE);
      mostBuffered = Math.max(mostBuffered, stream.res.writableLength);
    }
    await stream.writer.end();
  })();
  await expect.poll(() => stream.res.writableNeedDrain).toBe(true);
  expect(sent).toBeLessThan(64);
  stream.socket.destroy();
  await writing;
  expect(sent).toBe(64);
  expect(mostBuffered).toBeLessThan(3 * MEGABYTE.length);
});

test("the end waits until a slow reader has everything", async () => {
  await using stream = await openStream();
  let received = 0;
  stream.socket.on("data", (chunk: Buffer) => (received += chunk.length));
  stream.socket.pause();
  const writing = (async () => {
    for (let count = 0; count < 16; count += 1) await stream.writer.send("text_delta", MEGABYTE);
    await stream.writer.end();
  })();
  await expect.poll(() => stream.res.writableNeedDrain).toBe(true);
  stream.socket.resume();
  await writing;
  expect(stream.res.writableFinished).toBe(true);
  await once(stream.socket, "end");
  expect(received).toBeGreaterThan(16 * MEGABYTE.length);
});

test("a writer in a hurry no longer waits for a reader that does not read", async () => {
  const hurry = new AbortController();
  await using stream = await openStream(hurry.signal);
  let sent = 0;
  const sending = (async () => {
    while (!hurry.signal.aborted) {
      await stream.writer.send("text_delta", MEGABYTE);
      sent += 1;
    }
  })();
  await expect.poll(() => stream.res.writableNeedDrain).toBe(true);
  hurry.abort();
  await sending;
  await stream.writer.send("text_delta", MEGABYTE);
  expect(sent).toBeGreaterThan(0);
});
