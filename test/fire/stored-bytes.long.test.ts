import { randomUUID } from "node:crypto";
import postgres from "postgres";
import { expect, test } from "vitest";
import { ADMIN_KEY, callProcedure } from "../service/spawn-service.ts";
import { openTempDir } from "../support/temp-dir.ts";
import { openTestDatabase } from "../support/test-database.ts";
import { startFloodService } from "./flood-service.ts";

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
  await using service = await startFloodService({
    dataDir: home.path,
    databaseUrl: database.url,
    more: { ORCH_TURN_LOG_BYTES_PER_HOUR: String(LOG_LIMIT_BYTES) },
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
