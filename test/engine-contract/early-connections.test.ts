import { once } from "node:events";
import { createServer, type Socket } from "node:net";
import { afterEach, expect, test } from "vitest";
import { EngineConnections } from "../../server/engine-contract/connections.ts";
import { exchangeWithEngine } from "../../server/engine-contract/exchange.ts";

const ANSWER = '{"result":"here"}';

/** An engine that says on which of its connections a request came. */
async function openEngine({ greeting = "" } = {}) {
  const sockets: Socket[] = [];
  const used = new Set<number>();
  const server = createServer((socket) => {
    const index = sockets.push(socket) - 1;
    socket.on("error", () => {});
    if (greeting !== "" && index === 0) socket.write(greeting);
    socket.on("data", () => {
      used.add(index);
      socket.end(`HTTP/1.1 200 OK\r\ncontent-length: ${ANSWER.length}\r\n\r\n${ANSWER}`);
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("the server has no TCP port");
  stack.defer(async () => {
    for (const socket of sockets) socket.destroy();
    server.close();
    await once(server, "close");
  });
  return { endpoint: `http://127.0.0.1:${address.port}`, sockets, used };
}

let stack = new AsyncDisposableStack();
afterEach(async () => {
  await stack.disposeAsync();
  stack = new AsyncDisposableStack();
});

function openConnections(): EngineConnections {
  return stack.use(new EngineConnections());
}

async function call(connections: EngineConnections, endpoint: string): Promise<string> {
  const { signal } = new AbortController();
  const request = { method: "POST", path: "/rpc", body: "{}", maxBytes: 1_000, signal } as const;
  const result = await exchangeWithEngine(connections, endpoint, request);
  return result.kind === "answered" ? result.text : result.why;
}

test("a call uses the connection that was opened before its engine was known", async () => {
  const connections = openConnections();
  const engine = await openEngine();
  for (const expected of [0, 1, 2]) {
    using early = connections.early.open("product", "ada");
    early.remember(engine.endpoint);
    if (expected > 0) await expect.poll(() => engine.sockets.length).toBe(expected + 1);
    expect(await call(connections, engine.endpoint)).toBe(ANSWER);
  }
  expect([...engine.used]).toEqual([0, 1, 2]);
  expect(engine.sockets).toHaveLength(3);
});

test("a call that begins before its early connection is open waits for that connection", async () => {
  const connections = openConnections();
  const engine = await openEngine();
  connections.early.open("product", "ada").remember(engine.endpoint);
  using _early = connections.early.open("product", "ada");
  expect(await call(connections, engine.endpoint)).toBe(ANSWER);
  expect(engine.sockets).toHaveLength(1);
});

test("a connection that no call needed is closed, and nothing was sent on it", async () => {
  const connections = openConnections();
  const [before, now] = [await openEngine(), await openEngine()];
  connections.early.open("product", "ada").remember(before.endpoint);
  {
    using early = connections.early.open("product", "ada");
    early.remember(now.endpoint);
    expect(await call(connections, now.endpoint)).toBe(ANSWER);
    await expect.poll(() => before.sockets.length).toBe(1);
  }
  await expect.poll(() => before.sockets[0]?.closed).toBe(true);
  expect(before.sockets[0]?.bytesRead).toBe(0);
  expect(before.used.size).toBe(0);
});

test("an early connection that has an answer before its request is not used", async () => {
  const connections = openConnections();
  const engine = await openEngine({ greeting: "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nghost" });
  connections.early.open("product", "ada").remember(engine.endpoint);
  using _early = connections.early.open("product", "ada");
  await expect.poll(() => engine.sockets[0]?.bytesWritten).toBeGreaterThan(0);
  // The bytes are on the loopback by now; one exchange on another connection lets the service read them.
  expect(await call(connections, (await openEngine()).endpoint)).toBe(ANSWER);
  expect(await call(connections, engine.endpoint)).toBe(ANSWER);
  expect([...engine.used]).toEqual([1]);
});

test("an early connection that is refused does not fail the call", async () => {
  const connections = openConnections();
  const gone = await openEngine();
  connections.early.open("product", "ada").remember("http://127.0.0.1:1");
  using early = connections.early.open("product", "ada");
  early.remember(gone.endpoint);
  expect(await call(connections, gone.endpoint)).toBe(ANSWER);
  expect(await call(connections, "http://127.0.0.1:1")).toContain("ECONNREFUSED");
});

test("closing all connections closes those that no call has taken", async () => {
  const engine = await openEngine();
  {
    await using connections = new EngineConnections();
    connections.early.open("product", "ada").remember(engine.endpoint);
    connections.early.open("product", "ada");
    await expect.poll(() => engine.sockets.length).toBe(1);
  }
  await expect.poll(() => engine.sockets[0]?.closed).toBe(true);
});
