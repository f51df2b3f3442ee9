import { randomUUID } from "node:crypto";
import { fileURLToPath } from "node:url";
import postgres from "postgres";
import { expect, test } from "vitest";
import { ADMIN_KEY, callProcedure, startService } from "../service/spawn-service.ts";
import { takePortRange } from "../support/ports.ts";
import { openTempDir } from "../support/temp-dir.ts";
import { openTestDatabase } from "../support/test-database.ts";

const FLOOD_ENGINE = fileURLToPath(new URL("flood-engine.ts", import.meta.url));
const MB = 1024 * 1024;
const LOG_LIMIT_BYTES = 32 * MB;
/** A turn ends at the first commit beyond the limit. Until then, others of its product commit what they have read. */
const OVERSHOOT_BYTES = 64 * MB;
const CALLS = 300;
const CALLS_AT_ONCE = 10;
const TURNS = 20;

test("300 keyed calls with answers of 1 MB and 20 flooding turns store little, and the turns end with LOG_LIMIT", async () => {
  await using home = await openTempDir();
  await using database = await openTestDatabase();
  const ports = takePortRange(4);
  await using service = await startService({
    ORCH_DATA_DIR: home.path,
    ORCH_DATABASE_URL: database.url,
    ORCH_ADMIN_KEY: ADMIN_KEY,
    ORCH_ENGINE_BACKEND: "process",
    ORCH_ENGINE_COMMAND: `${process.execPath} ${FLOOD_ENGINE}`,
    ORCH_PORT_MIN: String(ports.min),
    ORCH_PORT_MAX: String(ports.max),
    ORCH_TURN_MAX_BYTES: "1000000000",
    ORCH_TURN_LOG_BYTES_PER_HOUR: String(LOG_LIMIT_BYTES),
    // A busy machine is no database that hangs.
    ORCH_LEASE_S: "300",
    ORCH_DRAIN_S: "0",
  });
  const operator = { url: service.url, key: ADMIN_KEY };
  const { data } = await callProcedure(operator, "products.register", { slug: "fire", name: "Fire" });
  const caller = { url: service.url, key: String(data["apiKey"]) };
  expect((await callProcedure(caller, "engines.provision", { userId: "ada" })).status).toBe(200);
  const sql = postgres(database.url, { max: 1, onnotice: () => {} });
  const databaseBytes = async () => {
    const [row] = await sql`select pg_database_size(current_database()) as bytes`;
    return Number(row?.["bytes"]);
  };
  try {
    const before = await databaseBytes();
    for (let called = 0; called < CALLS; called += CALLS_AT_ONCE) {
      const calls = Array.from({ length: CALLS_AT_ONCE }, async () => {
        const call = { userId: "ada", method: "big", params: { bytes: 1_000_000 } };
        return callProcedure(caller, "rpc.call", { ...call, idempotencyKey: randomUUID() });
      });
      for (const { status } of await Promise.all(calls)) expect(status).toBe(200);
    }
    const withReplies = await databaseBytes();
    expect(withReplies - before).toBeLessThan(80 * MB);

    const turnIds = Array.from({ length: TURNS }, () => randomUUID());
    const starts = turnIds.map(async (turnId) => {
      // 50 MB each second, as fast as the service reads it.
      const request = { message: "1000 1000", taskId: turnId };
      const { status } = await callProcedure(caller, "turns.start", { turnId, userId: "ada", request });
      return { turnId, status };
    });
    // A start that comes late may meet the limit already.
    const started = (await Promise.all(starts)).filter(({ status }) => status !== 429);
    expect(started.length).toBeGreaterThan(0);
    const endOf = async ({ turnId }: { turnId: string }) => {
      const { data: turn } = await callProcedure(caller, "turns.get", { turnId });
      return (turn["end"] as { reason: string } | null | undefined)?.reason;
    };
    const limited = started.map(() => "LOG_LIMIT");
    await expect.poll(async () => Promise.all(started.map(endOf)), { timeout: 60_000 }).toEqual(limited);
    const [logged] = await sql`select sum(bytes) as bytes from turns`;
    expect(Number(logged?.["bytes"])).toBeGreaterThan(LOG_LIMIT_BYTES / 2);
    expect(Number(logged?.["bytes"])).toBeLessThan(LOG_LIMIT_BYTES + OVERSHOOT_BYTES);
    expect((await databaseBytes()) - withReplies).toBeLessThan(2 * (LOG_LIMIT_BYTES + OVERSHOOT_BYTES));
    const late = { turnId: randomUUID(), userId: "ada", request: { message: "1 1", taskId: "late" } };
    expect((await callProcedure(caller, "turns.start", late)).status).toBe(429);
  } finally {
    await sql.end();
  }
}, 240_000);
