import { once } from "node:events";
import { createServer, type Socket } from "node:net";
import { expect, test } from "vitest";
import { EngineConnections } from "../../server/engine-contract/connections.ts";
import { callLateEngine } from "./call-late-engine.ts";
import { postRpc } from "../../server/engine-contract/rpc.ts";
import { answer, openHostileEngine } from "../rpc/hostile-engine.ts";
import { openLateEngine } from "./late-engine.ts";

test("a second answer of an engine is never the answer to another call", async () => {
  await using engine = await openLateEngine();
  await using connections = new EngineConnections();
  expect(await callLateEngine(connections, engine, 200)).toEqual([]);
  expect(engine.lateAnswers).toBe(200);
});

test("each call has a connection of its own, which ends with the call", async () => {
  await using engine = await openLateEngine();
  await using connections = new EngineConnections();
  await callLateEngine(connections, engine, 20);
  expect(engine.connections).toBe(20);
  await expect.poll(() => engine.openConnections).toBe(0);
});

/** A process that answers, and keeps its connections open after it has stopped to listen. */
async function openGhost() {
  const sockets: Socket[] = [];
  let received = "";
  const body = '{"result":"ghost"}';
  const text = `HTTP/1.1 200 OK\r\nkeep-alive: timeout=60\r\ncontent-length: ${body.length}\r\n\r\n${body}`;
  const server = createServer((socket) => {
    sockets.push(socket);
    socket.on("error", () => {});
    socket.on("data", (chunk) => {
      received += chunk.toString();
      socket.write(text);
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  const close = async () => {
    for (const socket of sockets) socket.destroy();
  };
  return {
    port,
    received: () => received,
    stopListening: () => server.close(),
    [Symbol.asyncDispose]: close,
  };
}

test("the key and the calls of an engine never reach a process that had its port before", async () => {
  await using ghost = await openGhost();
  await using connections = new EngineConnections();
  const call = async (apiKey: string) => {
    const target = {
      endpoint: `http://127.0.0.1:${ghost.port}`,
      apiKey,
      interrupted: new AbortController().signal,
    };
    return postRpc(connections, target, { method: "a.b", params: {}, timeoutMs: 20_000, readOnly: false });
  };
  for (let round = 0; round < 3; round += 1) expect(await call("old-key")).toMatchObject({ value: "ghost" });
  ghost.stopListening();
  await using engine = await openHostileEngine(answer(200, { result: "engine" }), ghost.port);
  for (let round = 0; round < 3; round += 1) expect(await call("new-key")).toMatchObject({ value: "engine" });
  expect(engine.calls).toHaveLength(3);
  expect(ghost.received()).not.toContain("new-key");
});
