import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { expect, test } from "vitest";
import { BodyBudget } from "../../../server/api/http/body-budget.ts";
import { CallerConnections } from "../../../server/api/http/caller-connections.ts";
import { type BodyContext, type BodyToRead, readBody } from "../../../server/api/http/read-body.ts";
import { RequestBody } from "../../../server/api/http/request-body.ts";
import { FairSlots } from "../../../server/time/fair-slots.ts";
import type { Caller } from "../../../server/keys/caller.ts";

const MIB = 1024 * 1024;
const CALLER: Caller = {
  kind: "platform_key",
  keyId: "key",
  name: "name",
  productId: "product",
  policy: {},
  scopes: [],
  actor: { kind: "platform_key", id: "key", name: "name" },
};

interface Reader extends AsyncDisposable {
  budget: BodyBudget;
  /** The place of the large body that is worked on. */
  place: FairSlots;
  /** The results of the readings that have ended. */
  texts: string[];
  /** How many responses have closed. */
  closed: () => number;
  /** Sends the head of a request, and the beginning of its body. */
  send(bodyBytes: number, sentBytes: number): Promise<Socket>;
}

/** A server that only reads bodies. Each key check waits for `checked`. */
async function openReader(checked: Promise<void> = Promise.resolve()): Promise<Reader> {
  const budget = new BodyBudget(64 * MIB);
  const place = new FairSlots(1);
  const enter = async (caller: string, signal: AbortSignal) => {
    (await place.take(caller, signal)).release();
  };
  const connections = new CallerConnections(100);
  const ctx: BodyContext = {
    app: { lease: { run: async (work) => work() } },
    budget,
    largeBodies: { enter },
    connections,
  };
  const texts: string[] = [];
  let closed = 0;
  const read = async (raw: IncomingMessage, response: ServerResponse) => {
    const incoming = new RequestBody();
    response.once("close", () => {
      incoming[Symbol.dispose]();
      closed += 1;
    });
    const { headers } = raw;
    const routeOptions = { bodyLimit: 8 * MIB } as BodyToRead["request"]["routeOptions"];
    const request = { raw, headers, routeOptions, incoming };
    const caller = { authenticate: async () => checked.then(() => CALLER) };
    texts.push(await readBody(ctx, { request, payload: raw, caller }).catch(() => "failed"));
    response.end();
  };
  const server = createServer((raw, response) => void read(raw, response));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const send = async (bodyBytes: number, sentBytes: number) => {
    const socket = connect((server.address() as AddressInfo).port, "127.0.0.1");
    socket.on("error", () => {});
    const arrived = once(server, "request");
    socket.write(`POST / HTTP/1.1\r\nhost: x\r\ncontent-length: ${bodyBytes}\r\n\r\n`);
    socket.write(Buffer.alloc(sentBytes, " "));
    await arrived;
    return socket;
  };
  const close = async () => {
    server.closeAllConnections();
    server.close();
    await once(server, "close");
  };
  return { budget, place, texts, closed: () => closed, send, [Symbol.asyncDispose]: close };
}

test("bytes of senders that leave during the check of their key are not held", async () => {
  const checked = Promise.withResolvers<void>();
  await using reader = await openReader(checked.promise);
  const sockets: Socket[] = [];
  while (sockets.length < 10) sockets.push(await reader.send(MIB, 10));
  for (const socket of sockets) socket.destroy();
  await expect.poll(reader.closed).toBe(10);
  checked.resolve();
  await expect.poll(() => reader.texts.length).toBe(10);
  expect(reader.budget.usedBytes).toBe(0);
  // The product has all of its share.
  const held = [reader.budget.hold("product", 6 * MIB), reader.budget.hold("product", 6 * MIB)];
  expect(held.every((each) => typeof each === "object")).toBe(true);
});

test("bytes of a sender that leaves while its body waits count until the body has left the queue", async () => {
  await using reader = await openReader();
  using _taken = await reader.place.take("other");
  const sender = await reader.send(4 * MIB, 4 * MIB);
  await expect.poll(() => reader.budget.usedBytes).toBe(4 * MIB);
  expect(reader.texts).toEqual([]);
  sender.destroy();
  await expect.poll(() => reader.texts).toEqual(["failed"]);
  expect(reader.budget.usedBytes).toBe(0);
});

test("bytes of a sender that left count until the reading has ended", async () => {
  const budget = new BodyBudget(64 * MIB);
  const held = budget.hold("product", MIB);
  if (typeof held === "string" || held.grow(MIB) !== undefined) throw new Error("no room");
  const incoming = new RequestBody();
  incoming.keep(held);
  const ended = Promise.withResolvers<string>();
  const reading = incoming.read(async () => ended.promise);
  incoming[Symbol.dispose]();
  expect(budget.usedBytes).toBe(MIB);
  ended.resolve("{}");
  await reading;
  expect(budget.usedBytes).toBe(0);
});

test("a body counts as held as it arrives", async () => {
  await using reader = await openReader();
  const sender = await reader.send(8 * MIB, MIB);
  await expect.poll(() => reader.budget.usedBytes).toBe(MIB);
  sender.destroy();
  await expect.poll(() => reader.budget.usedBytes).toBe(0);
});
