import { createServer } from "node:http";
import { Pool } from "undici";
import { logListening } from "./log-listening.ts";

/*
 * A product that repeats calls of every kind without a pause, whatever the answers are. In a process of its own, so that the
 * benchmark's own times stay true. It listens only to say that it has begun.
 */

const { BENCH_FLOOD_URL: url = "", BENCH_FLOOD_KEY: key = "", BENCH_FLOOD_CALLERS = "1" } = process.env;
const input = encodeURIComponent(JSON.stringify({ userId: "ada" }));
const turnId = crypto.randomUUID();
const CALLS = [
  { method: "GET", path: `/trpc/engines.get?input=${input}` },
  { method: "GET", path: "/trpc/engines.list" },
  { method: "POST", path: "/trpc/engines.admit", body: { userId: "ada" } },
  { method: "POST", path: "/trpc/engines.provision", body: { userId: "eve" } },
  { method: "POST", path: "/trpc/engines.start", body: { userId: "ada" } },
  { method: "POST", path: "/trpc/rpc.call", body: { userId: "ada", method: "get_config" } },
  { method: "POST", path: "/trpc/turns.cancel", body: { turnId } },
  { method: "POST", path: "/v1/engines/ada/execute", body: { message: "hi", task_id: "flood" } },
  { method: "GET", path: `/v1/turns/${turnId}/events` },
  { method: "GET", path: "/trpc/audit.list" },
] as const;

const callers = Number(BENCH_FLOOD_CALLERS);
const pool = new Pool(url, { connections: callers });
const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };
let calls = 0;

async function flood(): Promise<void> {
  for (;;) {
    const call = CALLS[calls % CALLS.length] ?? CALLS[0];
    calls += 1;
    const body = "body" in call ? JSON.stringify(call.body) : null;
    const answer = await pool.request({ method: call.method, path: call.path, headers, body });
    await answer.body.dump();
  }
}

const server = createServer();
server.listen(0, "127.0.0.1", () => logListening(server));
process.on("SIGTERM", () => process.exit(0));
await Promise.all(Array.from({ length: callers }, flood));
