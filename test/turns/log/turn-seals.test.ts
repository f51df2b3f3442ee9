import { randomUUID } from "node:crypto";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, inject, test, vi } from "vitest";
import { generateMasterKeys, openKeyring } from "../../../server/keys/keyring.ts";
import type { Log } from "../../../server/log.ts";
import { DataKeyFiles } from "../../../server/turns/log/data-key-files.ts";
import { DataKeys } from "../../../server/turns/log/data-keys.ts";
import { retireTurns } from "../../../server/turns/log/retire-turns.ts";
import { getTurn } from "../../../server/turns/read/get-turn.ts";
import { listTurns } from "../../../server/turns/read/list-turns.ts";
import { startTurn } from "../../../server/turns/start/start-turn.ts";
import { openDatabase } from "../../../db/client.ts";
import { findInFiles, toEncodings } from "../../support/find-in-files.ts";
import { shiftDatabaseClock } from "../../support/shift-clock.ts";
import { runAsAdmin } from "../../support/test-database.ts";
import { openTempDir } from "../../support/temp-dir.ts";
import { completed, delta, sse, streamOf } from "../engine-double.ts";
import { openTurnWorld, readAll, seqsOf, silentLog, startAndRead, type TurnWorld } from "../turn-world.ts";

let world: TurnWorld;
beforeAll(async () => {
  world = await openTurnWorld();
});
afterAll(async () => world[Symbol.asyncDispose]());
beforeEach(() => {
  world.engine.onCall = streamOf(delta("one"), delta("two"), completed());
});

/** A process with nothing in memory, and what it logs as an error. */
function openFreshProcess(options: Parameters<TurnWorld["openProcess"]>[0] = {}) {
  const error = vi.fn<Log["error"]>();
  const process = world.openProcess({ ...options, log: { ...silentLog, error } });
  return { ctx: process.ctx, error };
}

async function getDataKeys(): Promise<{ id: string; hour: string; sealed: string }[]> {
  return world.database.raw`select id, hour, sealed from data_keys`;
}

/** The WAL of the server, and the tables of this database. */
async function getFolders({ adminUrl }: Pick<TurnWorld, "adminUrl">): Promise<string[]> {
  await using owner = openDatabase({ url: adminUrl, poolSize: 2, applicationName: "folders" });
  const [row] = await owner.raw<{ directory: string; oid: string }[]>`
    select current_setting('data_directory') as directory, oid::text from pg_database
    where datname = current_database()`;
  if (row === undefined) throw new Error("the database is not listed");
  return [join(row.directory, "pg_wal"), join(row.directory, "base", row.oid)];
}

/** By the clock of the file system, which is coarser than ours. */
const aMomentAgo = () => Date.now() - 2_000;

/** A plain checkpoint writes no page of an unlogged table. The copy of a database needs them all. */
async function flushUnloggedTables(): Promise<void> {
  const name = `flush_${randomUUID().replaceAll("-", "")}`;
  const copy = `create database ${name} template template0 strategy file_copy`;
  await runAsAdmin(inject("databaseAdminUrl"), copy, `drop database ${name}`);
}

/** Every row of every table of the database, as text. */
async function readAllTables(): Promise<string> {
  await using owner = openDatabase({ url: world.adminUrl, poolSize: 2, applicationName: "all-tables" });
  const tables = await owner.raw<{ name: string }[]>`
    select format('%I.%I', schemaname, tablename) as name from pg_tables where schemaname in ('public', 'drizzle')`;
  const texts = await Promise.all(
    tables.map(async ({ name }) => owner.raw.unsafe(`select t::text from ${name} as t`)),
  );
  return JSON.stringify(texts);
}

test("sealed content is in no table and in no file of the database, WAL too, and readers get it unchanged", async () => {
  const sinceMs = aMomentAgo();
  const canary = `canary-${randomUUID()}`;
  world.engine.onCall = streamOf(
    delta(canary),
    sse("hitl_request", { request_id: "1", question: canary }),
    sse("error", { error: "MODEL_FAILED", message: canary, details: { canary } }),
  );
  const input = world.input({ message: canary, media: [{ text: canary }] });
  const live = await startAndRead(world, input);
  await runAsAdmin(world.adminUrl, "checkpoint");
  const { ctx } = openFreshProcess();
  const read = await readAll(ctx, input);
  expect(read.events).toEqual(live.events);
  expect(read.events[0]?.data).toEqual({ text: canary });
  expect(read.end).toEqual(live.end);
  expect(read.end?.engineError?.message).toBe(canary);
  expect((await getTurn(ctx, input)).end).toEqual(live.end);
  const page = await listTurns(ctx, { productId: world.productId, userId: "ann", limit: 1 });
  expect(page.items[0]?.end).toEqual(live.end);

  const encodings = toEncodings(canary);
  const tables = await readAllTables();
  expect(encodings.filter((text) => tables.includes(text))).toEqual([]);
  expect(await findInFiles(await getFolders(world), encodings, sinceMs)).toEqual([]);
});

test("the same search finds content that is not sealed", async () => {
  const sinceMs = aMomentAgo();
  const canary = `canary-${randomUUID()}`;
  world.engine.onCall = streamOf(delta(canary), completed());
  const { ctx } = openFreshProcess({ config: { sealTurns: false } });
  const input = world.input();
  await startTurn(ctx, input);
  await readAll(ctx, input);
  expect(await readAllTables()).toContain(canary);
  expect(await findInFiles(await getFolders(world), toEncodings(canary), sinceMs)).not.toEqual([]);
});

test("whether sealing is on or off, a process reads rows of both kinds", async () => {
  const off = openFreshProcess({ config: { sealTurns: false } }).ctx;
  const sealed = world.input();
  const plain = world.input();
  await startAndRead(world, sealed);
  await startTurn(off, plain);
  await readAll(off, plain);
  for (const ctx of [openFreshProcess().ctx, openFreshProcess({ config: { sealTurns: false } }).ctx]) {
    expect(seqsOf(await readAll(ctx, sealed))).toEqual([1, 2, 3]);
    expect(seqsOf(await readAll(ctx, plain))).toEqual([1, 2, 3]);
  }
  const rows = await world.database.raw`
    select events is null as "isSealed", sealed is null as "isPlain" from turn_events
    where turn_id in (${sealed.turnId}, ${plain.turnId}) group by 1, 2 order by 1`;
  expect(rows).toEqual([
    { isSealed: false, isPlain: true },
    { isSealed: true, isPlain: false },
  ]);
});

test("a row that was changed or moved is a gap, and the other rows are read", async () => {
  world.engine.onCall = (call) => call.open();
  const input = world.input();
  await startTurn(world.ctx, input);
  const call = await world.engine.callOf(input.request.taskId);
  const { raw } = world.database;
  const countRows = async () => (await raw`select from turn_events where turn_id = ${input.turnId}`).length;
  for (const count of [1, 2, 3]) {
    await call.write(delta(`part ${count}`));
    await expect.poll(countRows).toBe(count);
  }
  await call.write(completed());
  call.end();
  await readAll(world.ctx, input);
  await raw`
    update turn_events set sealed = (select sealed from turn_events where turn_id = ${input.turnId} and first_seq = 3)
    where turn_id = ${input.turnId} and first_seq = 2`;
  const { ctx, error } = openFreshProcess();
  const read = await readAll(ctx, input);
  expect(read.gaps).toEqual([{ fromSeq: 2, toSeq: 2, reason: "lost" }]);
  expect(seqsOf(read)).toEqual([1, 3, 4]);
  expect(read.end).toMatchObject({ status: "completed", lastSeq: 5 });
  expect(error).toHaveBeenCalledWith(
    expect.objectContaining({ row: `turn_events:${input.productId}/${input.turnId}:2:2` }),
    "sealed turn content is damaged",
  );
});

test("without its data key a turn is one gap and its end, and operators are told once", async () => {
  const input = world.input();
  await startAndRead(world, input);
  const { ctx, error } = openFreshProcess({ masterKeys: generateMasterKeys() });
  for (const afterSeq of [0, 1]) {
    const { batches } = await readAll(ctx, input, { afterSeq });
    expect(batches).toEqual([
      {
        lastSeq: 4,
        events: [],
        gap: { fromSeq: afterSeq + 1, toSeq: 3, reason: "lost" },
        end: expect.objectContaining({ status: "completed" }),
      },
    ]);
  }
  expect(error).toHaveBeenCalledTimes(1);
  expect(error.mock.calls[0]?.[0]).toMatchObject({ error: expect.stringContaining("add that key") });
});

test("a crash of Postgres empties the table of data keys, and a living replica writes them again", async () => {
  const input = world.input();
  await startAndRead(world, input);
  await runAsAdmin(world.adminUrl, "truncate data_keys");
  await world.ctx.seals.keepKeys();
  expect(seqsOf(await readAll(openFreshProcess().ctx, input))).toEqual([1, 2, 3]);
});

test("data keys survive a crash of Postgres and of the service in their files, under the first master key", async () => {
  await using folder = await openTempDir();
  const files = new DataKeyFiles(folder.path);
  const [first, second] = [generateMasterKeys(), generateMasterKeys()];
  const { raw } = world.database;
  const open = (masterKeys: string) =>
    new DataKeys({ raw, keyring: openKeyring(masterKeys), log: silentLog, files });
  const made = open(first);
  await made.prepare("2026112920");
  const key = made.findOwn("2026112920");
  const id = key?.id ?? "";
  await runAsAdmin(world.adminUrl, "truncate data_keys");
  expect((await open(`${second},${first}`).find(id))?.key.export()).toEqual(key?.key.export());
  // The file was sealed again, so the old master key can be dropped.
  expect((await open(second).find(id))?.key.export()).toEqual(key?.key.export());
  expect(await open(first).find(id)).toBeUndefined();
  await open(second).maintain(Number.MAX_SAFE_INTEGER / 1e6);
  expect(await getDataKeys()).toMatchObject([{ id }]);
});

test("after a reseal the old master key is not needed any more", async () => {
  const [first, second] = [generateMasterKeys(), generateMasterKeys()];
  const { raw } = world.database;
  await runAsAdmin(world.adminUrl, "truncate data_keys");
  const open = (masterKeys: string) =>
    new DataKeys({ raw, keyring: openKeyring(masterKeys), log: silentLog });
  const made = open(first);
  for (const hour of ["2026112920", "2026112921", "2026112922"]) await made.prepare(hour);
  const id = made.findOwn("2026112921")?.id ?? "";
  const rotated = open(`${second},${first}`);
  expect(await rotated.reseal(2)).toEqual({ resealed: 2, remaining: 1, unverified: 0 });
  expect(await rotated.reseal(2)).toEqual({ resealed: 1, remaining: 0, unverified: 0 });
  expect(await rotated.reseal(2)).toEqual({ resealed: 0, remaining: 0, unverified: 0 });
  expect((await open(second).find(id))?.key.export()).toEqual(made.findKnown(id)?.key.export());
  await runAsAdmin(world.adminUrl, "truncate data_keys");
});

test("retention destroys the data keys of an hour, so that a kept copy of the rows cannot be opened", async () => {
  const sinceMs = aMomentAgo();
  await using own = await openTurnWorld();
  await using folder = await openTempDir();
  own.engine.onCall = streamOf(delta("a"), sse("error", { error: "FAILED", message: "secret" }));
  const input = own.input();
  const before = await startAndRead(own, input);
  const { raw } = own.database;
  const [key] = await raw<{ id: string; hour: string; sealed: string }[]>`select * from data_keys`;
  if (key === undefined) throw new Error("there is no data key");
  await new DataKeyFiles(folder.path).write(key);
  await runAsAdmin(own.adminUrl, "create table copy as select * from turn_events");
  const folders = await getFolders(own);
  await flushUnloggedTables();
  const withKey = await findInFiles(folders, [key.sealed], sinceMs);
  expect(withKey).toHaveLength(1);
  expect(withKey.filter((path) => path.includes("pg_wal"))).toEqual([]);

  await shiftDatabaseClock(own.databaseUrl, "2 hours");
  const { dataKeys, config } = own.ctx;
  await dataKeys.maintain(config.turnRetentionMs);
  expect(await raw`select from data_keys`).toHaveLength(1);
  await shiftDatabaseClock(own.databaseUrl, "5 hours");
  await retireTurns(own.ctx);
  const files = new DataKeyFiles(folder.path);
  const other = new DataKeys({ ...own.ctx, files });
  expect(await other.maintain(config.turnRetentionMs)).toBe(1);
  await dataKeys.maintain(config.turnRetentionMs);
  expect(await raw`select from data_keys`).toHaveLength(0);
  expect(await readdir(folder.path)).toEqual([]);
  await flushUnloggedTables();
  expect(await findInFiles(folders, [key.sealed], sinceMs)).toEqual([]);

  const partition = `turn_events_${key.hour}`;
  await raw`select ensure_turn_partition(to_timestamp(${`${key.hour}+00`}, 'YYYYMMDDHH24TZH'))`;
  await runAsAdmin(own.adminUrl, `insert into ${partition} select * from copy`);
  for (const ctx of [own.ctx, own.openProcess().ctx]) {
    const read = await readAll(ctx, input);
    expect(read.events).toEqual([]);
    expect(read.gaps).toEqual([{ fromSeq: 1, toSeq: (before.end?.lastSeq ?? 0) - 1, reason: "lost" }]);
    expect(read.end).toMatchObject({
      status: "failed",
      reason: "ENGINE_ERROR",
      message: "the message was removed with the events of the turn",
      engineError: null,
    });
  }
});
