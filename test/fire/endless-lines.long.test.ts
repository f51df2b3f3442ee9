import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { ADMIN_KEY, callProcedure } from "../service/spawn-service.ts";
import { openTempDir } from "../support/temp-dir.ts";
import { openTestDatabase } from "../support/test-database.ts";
import { startFloodService } from "./flood-service.ts";

const MB = 1024 * 1024;
const TURN_MAX_BYTES = 1_000_000_000;
/** Of the whole process, beyond what it had at its peak before. Four streams of gigabytes pass through it at once. */
const MEMORY_BOUND_MB = 256;
const DONE = 'event: thread_lifecycle\ndata: {"phase":"completed"}\n\n';

/** What comes before the line that never ends, and how the turn must end. */
const LINES: [string, { status: string; reason: string | null }][] = [
  ["", { status: "failed", reason: "TURN_TOO_LARGE" }],
  [":", { status: "failed", reason: "TURN_TOO_LARGE" }],
  ["data: a\n\n\uFEFF", { status: "failed", reason: "TURN_TOO_LARGE" }],
  ["id: ", { status: "failed", reason: "EVENT_TOO_LARGE" }],
  ["event: ", { status: "failed", reason: "EVENT_TOO_LARGE" }],
  ["data: ", { status: "failed", reason: "EVENT_TOO_LARGE" }],
  [`${DONE}:`, { status: "completed", reason: null }],
  [`${DONE}data: `, { status: "completed", reason: null }],
];

/** The most memory that the process has had so far, in MB. */
function readPeakMb(pid: number): number {
  const [, kilobytes] = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? [];
  return Number(kilobytes) / 1024;
}

test("lines of a gigabyte without an end need bounded memory, end their turns as typed, and leave other turns alone", async (t) => {
  if (process.platform !== "linux") return t.skip("the test reads /proc");
  await using home = await openTempDir();
  await using database = await openTestDatabase();
  await using service = await startFloodService({
    dataDir: home.path,
    databaseUrl: database.url,
    more: { ORCH_TURN_MAX_BYTES: String(TURN_MAX_BYTES) },
  });
  const operator = { url: service.url, key: ADMIN_KEY };
  const { data } = await callProcedure(operator, "products.register", { slug: "fire", name: "Fire" });
  const caller = { url: service.url, key: String(data["apiKey"]) };
  expect((await callProcedure(caller, "engines.provision", { userId: "ada" })).status).toBe(200);
  const start = async (message: string) => {
    const turnId = randomUUID();
    const request = { message, taskId: turnId };
    expect((await callProcedure(caller, "turns.start", { turnId, userId: "ada", request })).status).toBe(200);
    return turnId;
  };
  const get = async (turnId: string) => (await callProcedure(caller, "turns.get", { turnId })).data;
  const before = readPeakMb(service.pid);
  const quiet = await start("1 10");
  const turns = await Promise.all(LINES.map(async ([first]) => start(`endless:${first}`)));
  const ends = async () => Promise.all(turns.map(async (turnId) => (await get(turnId))["end"]));
  await expect
    .poll(ends, { timeout: 240_000, interval: 500 })
    .toEqual(LINES.map(([, end]) => expect.objectContaining(end)));
  const bytes = await Promise.all(turns.map(async (turnId) => Number((await get(turnId))["bytes"])));
  expect(bytes.reduce((sum, one) => sum + one, 0)).toBeGreaterThan(3 * TURN_MAX_BYTES);
  const peak = readPeakMb(service.pid);
  console.log(`peak memory of the service: ${Math.round(before)} MB before, ${Math.round(peak)} MB after`);
  expect(peak - before).toBeLessThan(MEMORY_BOUND_MB);
  expect(Math.max(...bytes)).toBeLessThan(TURN_MAX_BYTES + 16 * MB);
  const { status, lastSeq } = await get(quiet);
  expect(status).toBe("streaming");
  await expect.poll(async () => (await get(quiet))["lastSeq"]).toBeGreaterThan(Number(lastSeq));
  await callProcedure(caller, "turns.cancel", { turnId: quiet });
}, 300_000);
