import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { get, type IncomingMessage } from "node:http";
import { connect, type Socket } from "node:net";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { createKey } from "../../server/keys/key-format.ts";
import { ADMIN_KEY, callProcedure, registerProduct } from "../service/spawn-service.ts";
import { openTempDir } from "../support/temp-dir.ts";
import { openTestDatabase } from "../support/test-database.ts";

const MAIN = fileURLToPath(new URL("../../server/main.ts", import.meta.url));
const MIB = 1024 * 1024;

interface Limited extends AsyncDisposable {
  url: string;
  pid: number;
  isRunning: () => boolean;
}

/** Starts the service as a process with limits of the shell and of Node. */
async function startLimited({ shell = "", node = "" }: { shell?: string; node?: string }): Promise<Limited> {
  const database = await openTestDatabase();
  const dir = await openTempDir();
  const child = spawn("sh", ["-c", `${shell} exec "${process.execPath}" ${node} "${MAIN}"`], {
    env: {
      PATH: process.env["PATH"] ?? "",
      ORCH_PORT: "0",
      ORCH_DATABASE_URL: database.url,
      ORCH_DATA_DIR: dir.path,
      ORCH_ADMIN_KEY: ADMIN_KEY,
      ORCH_ENGINE_BACKEND: "process",
    },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const listening = Promise.withResolvers<string>();
  let output = "";
  child.stdout.on("data", (chunk: Buffer) => {
    output = (output + chunk.toString()).slice(-100_000);
    const url = /"url":"([^"]+)".*"msg":"listening"/.exec(output)?.[1];
    if (url !== undefined) listening.resolve(url);
  });
  child.once("exit", () => listening.reject(new Error(output)));
  const close = async () => {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill("SIGTERM");
      await once(child, "exit");
    }
    await database.close();
    await dir[Symbol.asyncDispose]();
  };
  const isRunning = () => child.exitCode === null && child.signalCode === null;
  return { url: await listening.promise, pid: child.pid ?? 0, isRunning, [Symbol.asyncDispose]: close };
}

async function findResidentBytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1]) * 1024;
}

function dial(url: string): Socket {
  const socket = connect(Number(new URL(url).port), "127.0.0.1");
  socket.on("error", () => {});
  return socket;
}

interface Flood {
  socket: Socket;
  /** False once everything is sent, or the server has closed the connection. */
  isSending: () => boolean;
}

/** Sends all of the largest body but its last byte, and stays. */
function flood(url: string, key: string | undefined): Flood {
  const socket = dial(url);
  const authorization = key === undefined ? "" : `authorization: Bearer ${key}\r\n`;
  socket.write(
    `POST /trpc/turns.start HTTP/1.1\r\nhost: x\r\n${authorization}content-type: application/json\r\ncontent-length: ${8 * MIB}\r\n\r\n`,
  );
  const piece = Buffer.alloc(64 * 1024, " ");
  let left = 8 * MIB - 1;
  const send = () => {
    while (left > 0 && socket.writable) {
      const bytes = piece.subarray(0, Math.min(left, piece.length));
      left -= bytes.length;
      if (!socket.write(bytes)) return;
    }
  };
  socket.on("drain", send);
  socket.on("data", () => {});
  send();
  return { socket, isSending: () => !socket.destroyed && (left > 0 || socket.writableLength > 0) };
}

test.each([
  ["without a key", false],
  ["with a key", true],
])(
  "two hundred connections %s that each send 8 MiB less a byte add less than 300 MiB, and calls are served",
  async (_what, hasKey) => {
    await using service = await startLimited({ node: "--max-old-space-size=1024" });
    const key = await registerProduct(service.url);
    const before = await findResidentBytes(service.pid);
    const floods = Array.from({ length: 200 }, () => flood(service.url, hasKey ? key : undefined));
    let peak = before;
    while (floods.some(({ isSending }) => isSending())) {
      const { status } = await callProcedure({ url: service.url, key }, "engines.list", {});
      expect(status).toBe(200);
      peak = Math.max(peak, await findResidentBytes(service.pid));
    }
    expect(service.isRunning()).toBe(true);
    expect(peak - before).toBeLessThan(300 * MIB);
    for (const { socket } of floods) socket.destroy();
  },
);

/** Without a bound of connections, a new one waits until the silent ones time out after 15 s. */
async function askOnNewConnection(url: string): Promise<number | undefined> {
  const request = get(url, { agent: false, signal: AbortSignal.timeout(10_000) });
  const [response] = (await once(request, "response")) as [IncomingMessage];
  response.resume();
  await once(response, "end");
  return response.statusCode;
}

test("with 256 descriptors, 1,000 silent connections keep nobody out", async () => {
  await using service = await startLimited({ shell: "ulimit -n 256;" });
  const key = await registerProduct(service.url);
  const firsts = ["", "GET /", "GET /healthz HTTP/1.1\r\nhost: x\r\n"];
  const sockets: Socket[] = [];
  for (let round = 0; round < 20; round += 1) {
    for (let dialled = 0; dialled < 50; dialled += 1) {
      const socket = dial(service.url);
      socket.write(firsts[dialled % firsts.length] ?? "");
      sockets.push(socket);
    }
    for (const path of ["/healthz", "/readyz"]) {
      expect(await askOnNewConnection(`${service.url}${path}`)).toBe(200);
    }
    const list = async () => callProcedure({ url: service.url, key }, "engines.list", {});
    expect((await list()).status).toBe(200);
  }
  for (const socket of sockets) socket.destroy();
});

async function measureMedian(caller: { url: string; key: string }, until: () => boolean): Promise<number> {
  const all: number[] = [];
  while (!until()) {
    const startedAt = performance.now();
    expect((await callProcedure(caller, "engines.list", {})).status).toBe(200);
    all.push(performance.now() - startedAt);
  }
  return all.sort((a, b) => a - b)[Math.floor(all.length / 2)] ?? 0;
}

test("20,000 well-formed unknown keys leave the median of another tenant near that of refused requests", async () => {
  await using service = await startLimited({});
  const key = await registerProduct(service.url);
  const caller = { url: service.url, key };
  const refusals = new Map<number, number>();
  const guess = async (toKey: () => string, count: number) => {
    let sent = 0;
    const worker = async () => {
      while (sent < count) {
        sent += 1;
        const response = await fetch(`${service.url}/trpc/engines.list`, {
          headers: { authorization: `Bearer ${toKey()}` },
        });
        await response.text();
        refusals.set(response.status, (refusals.get(response.status) ?? 0) + 1);
      }
    };
    const workers = Promise.all(Array.from({ length: 40 }, worker));
    const median = await measureMedian(caller, () => sent >= count);
    await workers;
    return median;
  };
  // Requests that never reach the database: what any flood of requests costs.
  const malformed = await guess(() => "nonsense", 5_000);
  refusals.clear();
  const unknown = await guess(() => createKey("platform").plaintext, 20_000);
  expect(refusals.get(429)).toBeGreaterThan(19_000);
  expect(unknown).toBeLessThan(malformed * 2);
});

function toCostlyBody(keys: number, name: string): Buffer {
  const fields = Array.from({ length: keys }, (_, index) => [`${name}${index}`, index]);
  const request = { message: "m", taskId: "t", ...Object.fromEntries(fields) };
  return Buffer.from(JSON.stringify({ turnId: randomUUID(), userId: "ada", request }));
}

test("costly requests of one tenant leave calls of another one answered, and the database available", async () => {
  await using service = await startLimited({});
  const key = await registerProduct(service.url);
  const { data } = await callProcedure({ url: service.url, key: ADMIN_KEY }, "products.register", {
    slug: "costly",
    name: "Costly",
  });
  const costly = String(data["apiKey"]);
  const send = async (body: Buffer) => {
    const headers = { authorization: `Bearer ${costly}`, "content-type": "application/json" };
    const response = await fetch(`${service.url}/trpc/turns.start`, { method: "POST", headers, body });
    const reply = (await response.json()) as { error: { data: { reason: string; retryAfterMs?: number } } };
    return reply.error.data;
  };
  expect((await send(toCostlyBody(600_000, "k"))).reason).toBe("REQUEST_TOO_LARGE");
  // The costliest request that is allowed: the largest body with the most keys.
  const costliest = toCostlyBody(24_900, "k".repeat(300));
  const reasons = new Set<string>();
  const over = new AbortController();
  const workers = Array.from({ length: 10 }, async () => {
    while (!over.signal.aborted) {
      const { reason, retryAfterMs = 0 } = await send(costliest);
      reasons.add(reason);
      await pause(retryAfterMs);
    }
  });
  try {
    for (let called = 0; called < 100; called += 1) {
      expect((await callProcedure({ url: service.url, key }, "engines.list", {})).status).toBe(200);
    }
  } finally {
    over.abort();
    await Promise.all(workers);
  }
  expect([...reasons].filter((reason) => reason !== "RATE_LIMITED")).toEqual(["ENGINE_NOT_FOUND"]);
});
