import { randomUUID } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { expect, test } from "vitest";
import { ADMIN_KEY, callProcedure } from "../service/spawn-service.ts";
import { openTempDir } from "../support/temp-dir.ts";
import { openTestDatabase } from "../support/test-database.ts";
import { openInspector } from "./inspector.ts";
import { startFloodService } from "./flood-service.ts";

/** The kernel's buffers for each of them hold up to 2.5 MB on loopback, and the service reads all of it from the turn log. */
const READERS = 150;
const ANSWERS = 20;
/** Each stalled reader held 650 KB of this before the service bounded it. */
const HEAP_MB = 128;
const HEAP_GROWTH_MAX_BYTES = 64 * 1024 * 1024;
const STALL_PATIENCE = { timeout: 240_000, interval: 500 };

interface Reader {
  socket: Socket;
  received: () => string;
  isClosed: () => boolean;
}

function dial(url: string, request: string): Reader {
  const socket = connect(Number(new URL(url).port), "127.0.0.1");
  const chunks: string[] = [];
  let closed = false;
  socket.setEncoding("latin1");
  socket.pause();
  socket.on("error", () => {});
  socket.on("data", (chunk: string) => chunks.push(chunk));
  socket.on("close", () => (closed = true));
  socket.write(request);
  return { socket, received: () => chunks.join(""), isClosed: () => closed };
}

function toRead(turnId: string, key: string, more = ""): string {
  const path = `/trpc/turns.events?input=${encodeURIComponent(JSON.stringify({ turnId }))}`;
  return `GET ${path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${key}\r\n${more}\r\n`;
}

/** Ten calls, each with an answer of almost 1 MB. */
function toLargeCalls(key: string): string {
  const call = { userId: "ada", method: "skill.big", params: { bytes: 1_000_000 } };
  const body = JSON.stringify(Object.fromEntries(Array.from({ length: 10 }, (_, index) => [index, call])));
  const path = Array.from({ length: 10 }, () => "rpc.call").join(",");
  const head = ["host: x", `authorization: Bearer ${key}`, "content-type: application/json"];
  head.push(`content-length: ${body.length}`);
  return `POST /trpc/${path}?batch=1 HTTP/1.1\r\n${head.join("\r\n")}\r\n\r\n${body}`;
}

async function readRssMb(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024;
}

/** The seqs of all events in what a reader has received. */
const seqsOf = (text: string) => [...text.matchAll(/\{"seq":(\d+),/g)].map(([, seq]) => Number(seq));
const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, index) => from + index);

test("readers and callers that take nothing cost little memory, are cut after a minute, and can resume", async () => {
  await using home = await openTempDir();
  await using database = await openTestDatabase();
  await using service = await startFloodService({
    dataDir: home.path,
    databaseUrl: database.url,
    more: { NODE_OPTIONS: `--inspect=127.0.0.1:0 --max-old-space-size=${HEAP_MB}` },
  });
  using inspector = await openInspector(service.output());
  const operator = { url: service.url, key: ADMIN_KEY };
  const { data } = await callProcedure(operator, "products.register", { slug: "fire", name: "Fire" });
  const caller = { url: service.url, key: String(data["apiKey"]) };
  const { productId } = data["product"] as { productId: string };
  const issued = await callProcedure(operator, "platformKeys.issue", { productId, name: "leaked" });
  const leaked = {
    keyId: (issued.data["key"] as { keyId: string }).keyId,
    key: String(issued.data["apiKey"]),
  };
  expect((await callProcedure(caller, "engines.provision", { userId: "ada" })).status).toBe(200);
  const turnId = randomUUID();
  // 1 MB each second.
  const request = { message: "20 1000", taskId: "t" };
  await callProcedure(caller, "turns.start", { turnId, userId: "ada", request });
  const quiet = await inspector.measure();
  const quietRssMb = await readRssMb(service.pid);

  const steady = dial(service.url, toRead(turnId, caller.key));
  // A slow reader that takes something all the time.
  const sipping = setInterval(() => steady.socket.read(), 200);
  const stalled = range(1, READERS).map((index) =>
    dial(service.url, toRead(turnId, index % 4 === 0 ? leaked.key : caller.key)),
  );
  const callers = range(1, ANSWERS).map(() => dial(service.url, toLargeCalls(caller.key)));
  // Not by the inspector, which collects garbage: that often, it would leave no time for anything else.
  const openConnections = async () => (await readdir(`/proc/${service.pid}/fd`)).length - quiet.descriptors;
  await expect.poll(openConnections, STALL_PATIENCE).toBeGreaterThanOrEqual(READERS + ANSWERS);

  // Others are served while the readers stall, and the heap stays far below its limit.
  const turnBytes = async () =>
    Number((await callProcedure(caller, "turns.get", { turnId })).data["bytes"] ?? 0);
  const start = await turnBytes();
  await expect.poll(turnBytes, STALL_PATIENCE).toBeGreaterThan(start + 15_000_000);
  const full = await inspector.measure();
  expect(full.heapBytes - quiet.heapBytes).toBeLessThan(HEAP_GROWTH_MAX_BYTES);
  expect((await readRssMb(service.pid)) - quietRssMb).toBeLessThan(400);

  await callProcedure(operator, "platformKeys.revoke", { keyId: leaked.keyId });
  await expect.poll(openConnections, STALL_PATIENCE).toBeLessThanOrEqual((READERS * 3) / 4 + ANSWERS + 10);
  // The steady reader stays. A few connections of this test's own calls are kept alive.
  await expect.poll(openConnections, STALL_PATIENCE).toBeLessThanOrEqual(10);
  expect(steady.isClosed() ? steady.received().slice(-1_000) : "open").toBe("open");
  clearInterval(sipping);

  const [cut] = stalled;
  if (cut === undefined) throw new Error("there is no reader");
  cut.socket.resume();
  await expect.poll(cut.isClosed).toBe(true);
  const received = cut.received();
  const cursor = Number([...received.matchAll(/\nid: (\d+)\r?\n/g)].at(-1)?.[1] ?? 0);
  const resumed = dial(service.url, toRead(turnId, caller.key, `last-event-id: ${cursor}\r\n`));
  resumed.socket.resume();
  await expect.poll(() => seqsOf(resumed.received()).length).toBeGreaterThan(1_000);
  const seqs = seqsOf(resumed.received());
  expect(seqs).toEqual(range(cursor + 1, cursor + seqs.length));

  // Stalled readers do not hold up the end of the process either.
  await callProcedure(caller, "engines.destroy", { userId: "ada", whenBusy: "interrupt" });
  // A process waits for its debugger before it exits.
  inspector[Symbol.dispose]();
  expect(await service.signal("SIGTERM")).toBe(0);
  for (const { socket } of [steady, resumed, ...stalled, ...callers]) socket.destroy();
}, 900_000);
