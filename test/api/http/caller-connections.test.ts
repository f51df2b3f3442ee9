import type { ServerResponse } from "node:http";
import { connect, type Socket } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { CallerConnections } from "../../../server/api/http/caller-connections.ts";
import { type HttpServer, openHttpServer } from "../../../server/api/http/http-server.ts";
import { toMaxBodyBytes, toMaxConnections } from "../../../server/api/http/process-limits.ts";
import { judgeConnection } from "../../fire/judge-reply.ts";
import { ADMIN_KEY, type Api, openApi } from "../open-api.ts";

const MAX = 8;

let api: Api;
beforeAll(async () => {
  api = await openApi();
});
afterAll(async () => {
  await api[Symbol.asyncDispose]();
});

interface Crowd extends AsyncDisposable {
  server: HttpServer;
  dial(first?: string): Client;
}

interface Client {
  socket: Socket;
  received: () => string;
  statuses: () => number[];
  isClosed: () => boolean;
}

/** A server that serves eight connections. */
async function openCrowd(): Promise<Crowd> {
  const bounds = { connections: MAX };
  const server = await openHttpServer(api.ctx, { host: "127.0.0.1", port: 0, bounds });
  const sockets: Socket[] = [];
  const dial = (first = ""): Client => {
    const socket = connect(Number(new URL(server.url).port), "127.0.0.1");
    sockets.push(socket);
    let received = "";
    let closed = false;
    socket.on("error", () => {});
    socket.on("close", () => {
      closed = true;
    });
    socket.on("data", (chunk) => {
      received += chunk.toString("latin1");
    });
    if (first !== "") socket.write(first);
    return {
      socket,
      received: () => received,
      statuses: () => judgeConnection(received).map(({ status }) => status),
      isClosed: () => closed,
    };
  };
  const close = async () => {
    for (const socket of sockets) socket.destroy();
    await server.close(1_000);
  };
  return { server, dial, [Symbol.asyncDispose]: close };
}

const HEALTH = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
const LIST = `GET /trpc/products.list HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${ADMIN_KEY}\r\n\r\n`;
const SLOW = LIST.replace("GET", "POST").replace(
  "host: x",
  "host: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\nexpect: 100-continue",
);
const STRANGER = SLOW.replace(ADMIN_KEY, "nonsense").replace("\r\nexpect: 100-continue", "");

async function times<Value>(count: number, make: () => Value | Promise<Value>): Promise<Value[]> {
  return Promise.all(Array.from({ length: count }, async () => make()));
}

/** A connection whose request runs until its body comes. */
async function openBusy(crowd: Crowd): Promise<Client> {
  const client = crowd.dial(SLOW);
  await expect.poll(client.received).toContain("100 Continue");
  return client;
}

test.each([
  ["say nothing", ""],
  ["do not end their headers", "GET /healthz HTTP/1.1\r\nhost: x\r\n"],
  ["send a body without an accepted key", STRANGER],
])("many connections that %s keep nobody out: the oldest make room", async (_what, first) => {
  await using crowd = await openCrowd();
  const known = crowd.dial(LIST);
  await expect.poll(known.statuses).toEqual([200]);
  const crowdOf = await times(10 * MAX, () => crowd.dial(first));
  const fresh = crowd.dial(HEALTH);
  await expect.poll(fresh.statuses).toEqual([200]);
  const open = () => crowdOf.filter((client) => !client.isClosed()).length;
  await expect.poll(open).toBeLessThanOrEqual(MAX);
  known.socket.write(LIST);
  await expect.poll(known.statuses).toEqual([200, 200]);
});

test("a busy connection is never cut, and an idle one of a known caller only when nothing else is left", async () => {
  await using crowd = await openCrowd();
  const busy = await times(MAX - 1, async () => openBusy(crowd));
  const idle = crowd.dial(LIST);
  await expect.poll(idle.statuses).toEqual([200]);
  const late = crowd.dial(LIST);
  await expect.poll(late.statuses).toEqual([200]);
  await expect.poll(idle.isClosed).toBe(true);
  for (const { socket } of busy) socket.write('{"limit":1}'.slice(0, 9));
  for (const client of busy) {
    await expect.poll(() => client.received().includes("HTTP/1.1 400")).toBe(true);
  }
});

test("when all connections are busy, health is answered and everything else is RATE_LIMITED", async () => {
  await using crowd = await openCrowd();
  const busy = await times(MAX, async () => openBusy(crowd));
  await times(100, () => crowd.dial());
  for (const path of ["/healthz", "/readyz"]) {
    const health = crowd.dial(HEALTH.replace("/healthz", path));
    await expect.poll(health.statuses).toEqual([200]);
    await expect.poll(health.isClosed).toBe(true);
  }
  const refused = crowd.dial(LIST);
  await expect.poll(refused.statuses).toEqual([429]);
  expect(refused.received()).toMatch(/retry-after: 1\r\n/);
  expect(refused.received()).toContain('"reason":"RATE_LIMITED"');
  await expect.poll(refused.isClosed).toBe(true);
  expect(busy.some((client) => client.isClosed())).toBe(false);
  busy[0]?.socket.destroy();
  const again = async () => (await fetch(`${crowd.server.url}/trpc/health.live`)).status;
  await expect.poll(again).toBe(200);
});

test("beyond the reserve for health, a connection is refused only if all of the reserve is busy, too", () => {
  const connections = new CallerConnections(MAX);
  const join = (isBusy: boolean) => {
    const socket = { remoteAddress: "192.0.2.1", once: () => {}, destroy: () => {} } as unknown as Socket;
    const turned = connections.admit(socket);
    const { healthOnly } = isBusy ? connections.begin(socket, {} as ServerResponse) : {};
    return { turned, healthOnly };
  };
  for (let dialled = 0; dialled < MAX; dialled += 1) expect(join(true).healthOnly).toBe(false);
  for (let dialled = 0; dialled < 100; dialled += 1) expect(join(false).turned).toBe("admitted");
  for (let dialled = 0; dialled < 32; dialled += 1) {
    expect(join(true)).toEqual({ turned: "admitted", healthOnly: true });
  }
  expect(join(false).turned).toBe("refused");
});

test("an operator reads in the log that connections were closed for this reason", async () => {
  await using crowd = await openCrowd();
  await times(3 * MAX, () => crowd.dial());
  const { logged } = api;
  const find = () => logged.find((line) => line.includes("as many as this process serves"));
  await expect.poll(find).toBeDefined();
  expect(JSON.parse(find() ?? "{}")).toMatchObject({ level: "warn", max: MAX });
});

test("an address with many quiet connections loses its own, and not those of others", () => {
  const connections = new CallerConnections(MAX);
  const closed: string[] = [];
  const join = (name: string, remoteAddress: string) => {
    const socket = { remoteAddress, once: () => {}, destroy: () => closed.push(name) };
    connections.admit(socket as unknown as Socket);
  };
  join("other", "192.0.2.1");
  for (let dialled = 0; dialled < MAX - 1; dialled += 1) join(`own ${dialled}`, "2001:db8::1");
  for (let dialled = 0; dialled < 3; dialled += 1) join("late", "2001:db8::2");
  expect(closed).toEqual(["own 0", "own 1", "own 2"]);
  join("third", "192.0.2.3");
  expect(closed).toEqual(["own 0", "own 1", "own 2", "other"]);
});

test.each([
  [256, 10, 82],
  [1_024, 10, 466],
  [64, 10, 16],
  [1_048_576, 10, 10_000],
  [undefined, 10, 10_000],
])("with %s descriptors and a pool of %s, %s connections are served", (openFiles, pool, expected) => {
  expect(toMaxConnections(openFiles, pool)).toBe(expected);
});

test("bodies take a sixteenth of the memory, within fixed bounds", () => {
  const mib = 1024 * 1024;
  expect(toMaxBodyBytes(1_024 * mib)).toBe(64 * mib);
  expect(toMaxBodyBytes(1)).toBe(32 * mib);
  expect(toMaxBodyBytes(1e15)).toBe(256 * mib);
});
