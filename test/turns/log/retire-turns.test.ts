import { expect, test } from "vitest";
import { listTurns } from "../../../server/turns/read/list-turns.ts";
import { retireTurns } from "../../../server/turns/log/retire-turns.ts";
import { ensureTurnPartitionAt, ensureTurnPartitions } from "../../../db/turn-partitions.ts";
import { startTurn } from "../../../server/turns/start/start-turn.ts";
import { shiftDatabaseClock } from "../../support/shift-clock.ts";
import { completed, delta, streamOf } from "../engine-double.ts";
import { openTurnWorld, readAll, startAndRead, seqsOf, type TurnWorld } from "../turn-world.ts";

async function partitions(world: TurnWorld): Promise<string[]> {
  const rows = await world.database.raw<{ name: string }[]>`
    select relname as name from pg_class where relname ~ '^turn_events_[0-9]+$' and relkind = 'r' order by 1`;
  return rows.map((row) => row.name);
}

test("events are dropped when the retention after their turn's end is over, and a reader gets a gap for them", async () => {
  await using world = await openTurnWorld();
  world.engine.onCall = streamOf(delta("a"), completed());
  const input = world.input();
  const before = await startAndRead(world, input);
  await shiftDatabaseClock(world.databaseUrl, "2 hours");
  expect(await retireTurns(world.ctx)).toEqual({ droppedPartitions: 0 });
  expect(seqsOf(await readAll(world.ctx, input))).toEqual([1, 2]);
  await shiftDatabaseClock(world.databaseUrl, "5 hours");
  expect(await retireTurns(world.ctx)).toEqual({ droppedPartitions: 1 });
  expect(await partitions(world)).toEqual([]);
  expect((await readAll(world.ctx, input)).batches).toEqual([
    { lastSeq: 3, events: [], gap: { fromSeq: 1, toSeq: 2, reason: "retention" }, end: before.end },
  ]);
  expect((await readAll(world.ctx, input, { afterSeq: 2 })).gaps).toEqual([]);
  expect(await startTurn(world.ctx, input)).toMatchObject({ created: false, status: "completed" });
});

test("a turn that is live, or ended late, keeps the partition of its start", async () => {
  await using world = await openTurnWorld();
  world.engine.onCall = (call) => call.open();
  const input = world.input();
  await startTurn(world.ctx, input);
  const call = world.engine.calls[0];
  await call?.write(delta("a"));
  await expect.poll(() => partitions(world)).toHaveLength(1);
  await shiftDatabaseClock(world.databaseUrl, "10 hours");
  await retireTurns(world.ctx);
  await call?.write(completed());
  call?.end();
  await readAll(world.ctx, input);
  await shiftDatabaseClock(world.databaseUrl, "12 hours");
  await retireTurns(world.ctx);
  expect(seqsOf(await readAll(world.ctx, input))).toEqual([1, 2]);
  await shiftDatabaseClock(world.databaseUrl, "14 hours");
  expect(await retireTurns(world.ctx)).toEqual({ droppedPartitions: 1 });
});

test("a slow reader of a partition delays its drop, keeps its rows, and stops neither writers nor new partitions", async () => {
  await using world = await openTurnWorld();
  world.engine.onCall = streamOf(delta("a"), completed());
  await startAndRead(world);
  await shiftDatabaseClock(world.databaseUrl, "5 hours");
  await ensureTurnPartitions(world.ctx.raw);
  const reader = await world.database.raw.reserve();
  const countRows = async () =>
    reader.unsafe<{ rows: number }[]>("select count(*)::int as rows from turn_events");
  await reader.unsafe("begin isolation level repeatable read");
  expect(await countRows()).toEqual([{ rows: 1 }]);
  const over = new AbortController();
  const retiring = retireTurns(world.ctx).finally(() => over.abort());
  let writes = 0;
  while (!over.signal.aborted) {
    // A writer waits behind an attempt to drop for 50 ms at most. The limit here only ends a test that hangs.
    await world.database.raw.unsafe(`
      select set_config('lock_timeout', '5s', true);
      insert into turn_events values (gen_random_uuid(), gen_random_uuid(), orch_now(), 1, 1, '[]')`);
    writes += 1;
  }
  expect(writes).toBeGreaterThan(1);
  expect(await retiring).toEqual({ droppedPartitions: 0 });
  expect((await startAndRead(world)).end).toMatchObject({ status: "completed" });
  expect(await countRows()).toEqual([{ rows: 1 }]);
  await ensureTurnPartitionAt(world.ctx.raw, new Date(Date.now() + 9 * 3_600_000).toISOString());
  await reader.unsafe("commit");
  reader.release();
  expect(await retireTurns(world.ctx)).toEqual({ droppedPartitions: 1 });
  expect(await partitions(world)).toHaveLength(4);
});

test("rows of turns are deleted after thirty days, live ones never", async () => {
  await using world = await openTurnWorld();
  world.engine.onCall = streamOf(completed());
  const old = world.input();
  await startAndRead(world, old);
  world.engine.onCall = (call) => call.open();
  const live = world.input();
  await startTurn(world.ctx, live);
  await shiftDatabaseClock(world.databaseUrl, "29 days");
  await retireTurns(world.ctx);
  const key = { productId: world.productId, userId: "ann" };
  expect((await listTurns(world.ctx, { ...key, limit: 100 })).items).toHaveLength(2);
  await shiftDatabaseClock(world.databaseUrl, "31 days");
  await retireTurns(world.ctx);
  expect((await listTurns(world.ctx, { ...key, limit: 100 })).items.map((turn) => turn.turnId)).toEqual([
    live.turnId,
  ]);
});
