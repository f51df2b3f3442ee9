import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { RawSql } from "../../../db/client.ts";
import { appendToTurnLog, type TurnAppend } from "../../../db/turn-events.ts";
import { insertTurn } from "../../../db/turns.ts";
import { ensureTurnPartitions } from "../../../db/turn-partitions.ts";
import { getTurn } from "../../../server/turns/read/get-turn.ts";
import type { LiveTurn } from "../../../server/turns/model/live-turn.ts";
import { recordTurn } from "../../../server/turns/start/record-turn.ts";
import { COMPLETED } from "../../../server/turns/model/turn-end.ts";
import { startTurn } from "../../../server/turns/start/start-turn.ts";
import { completed, delta, started, streamOf } from "../engine-double.ts";
import { interceptStatements, LOG_COMMIT, TURN_BEGIN } from "../intercept-statements.ts";
import { openMovableClock } from "../movable-clock.ts";
import { openFlakyLink } from "../../support/flaky-link.ts";
import { runAsAdmin } from "../../support/test-database.ts";
import {
  openTurnWorld,
  readAll,
  seqsOf,
  startAndRead,
  type TurnWorld,
  type WorldContext,
} from "../turn-world.ts";

let world: TurnWorld;
beforeAll(async () => {
  world = await openTurnWorld();
});
afterAll(async () => world[Symbol.asyncDispose]());

const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, index) => from + index);

describe("commits", () => {
  test("a hundred turns at once are committed in far fewer statements than turns", async () => {
    world.engine.onCall = streamOf(started(), ...range(1, 50).map((index) => delta(`${index}`)), completed());
    let commits = 0;
    const mayCommit = Promise.withResolvers<void>();
    const { ctx } = world.openProcess({
      wrapRaw: (raw) =>
        interceptStatements(raw, LOG_COMMIT, async (send) => {
          commits += 1;
          await mayCommit.promise;
          return send();
        }),
    });
    await ensureTurnPartitions(ctx.raw);
    const inputs = range(1, 100).map(() => world.input());
    await Promise.all(inputs.map((input) => startTurn(ctx, input)));
    const turns = inputs.map((input) => ctx.turns.find(input.productId, input.turnId));
    await expect.poll(() => turns.every((turn) => turn?.hasEnd)).toBe(true);
    mayCommit.resolve();
    for (const input of inputs) {
      const read = await readAll(ctx, input);
      expect(seqsOf(read)).toEqual(range(1, 52));
      expect(read.end).toMatchObject({ status: "completed" });
    }
    expect(commits).toBeLessThan(10);
  });

  test("more events than a commit reserves reach readers as later commits reserve more", async () => {
    world.engine.onCall = streamOf(...range(1, 20_000).map((index) => delta(`${index}`)), completed());
    expect(seqsOf(await startAndRead(world))).toEqual(range(1, 20_001));
  });

  test("a turn whose partition is missing is committed all the same", async () => {
    await using fresh = await openTurnWorld();
    fresh.engine.onCall = streamOf(delta("a"), completed());
    const input = fresh.input();
    expect(await startTurn(fresh.ctx, input)).toMatchObject({ created: true });
    expect((await readAll(fresh.ctx, input)).events).toHaveLength(2);
    expect(await partitions(fresh)).toHaveLength(1);
    await ensureTurnPartitions(fresh.ctx.raw);
    await ensureTurnPartitions(fresh.ctx.raw);
    expect((await partitions(fresh)).length).toBeGreaterThanOrEqual(3);
  });

  test("a turn that cannot be committed does not delay the others", async () => {
    await using broken = await openTurnWorld();
    await ensureTurnPartitions(broken.ctx.raw);
    const poisoned = broken.input();
    await runAsAdmin(
      broken.adminUrl,
      `create function refuse() returns trigger language plpgsql as
        $$ begin if new.turn_id = '${poisoned.turnId}' then raise 'poisoned'; end if; return new; end $$;
      create trigger refuse before insert on turn_events for each row execute function refuse()`,
    );
    broken.engine.onCall = streamOf(delta("a"), completed());
    await startTurn(broken.ctx, poisoned);
    const read = await startAndRead(broken, broken.input());
    expect(read.end).toMatchObject({ status: "completed" });
    expect(await getTurn(broken.ctx, poisoned)).toMatchObject({ end: null });
    await runAsAdmin(broken.adminUrl, "drop trigger refuse on turn_events");
    expect((await readAll(broken.ctx, poisoned)).end).toMatchObject({ status: "completed" });
  });
});

test("while engines flood the log every turn progresses, and a quiet one ends between their commits", async () => {
  const { ctx } = world.openProcess();
  await ensureTurnPartitions(ctx.raw);
  const at = new Date().toISOString();
  const data = "x".repeat(60_000);
  const flood = (turn: LiveTurn) => {
    for (let count = 0; count < 20; count += 1) {
      turn.append({ at, type: "message", json: JSON.stringify(data) }, Date.now());
    }
    ctx.turnLog.touch(turn);
    if (!turn.hasEnd) turn.onCommitted(() => flood(turn));
  };
  const floods = await Promise.all(range(1, 16).map(async () => openLiveTurn(ctx)));
  floods.forEach(flood);
  const quiet = await openLiveTurn(ctx);
  quiet.end(COMPLETED);
  ctx.turnLog.touch(quiet);
  await quiet.until("over");
  // Each flood is committed while all of them go on.
  for (const turn of floods) {
    await expect.poll(() => loggedSeq(turn.input.turnId)).toBeGreaterThan(0);
  }
  for (const turn of floods) {
    turn.end(COMPLETED);
    ctx.turnLog.touch(turn);
    ctx.turns.remove(turn);
  }
  await Promise.all(floods.map(async (turn) => turn.until("over")));
});

/** A turn in `streaming` without any engine. */
async function openLiveTurn(ctx: WorldContext): Promise<LiveTurn> {
  const { productId, turnId, userId, request } = world.input();
  const [engine] = world.engines;
  const fingerprint = "f".repeat(64);
  const turn = ctx.turns.open({
    productId,
    turnId,
    userId,
    taskId: request.taskId,
    fingerprint,
    startedBy: null,
  });
  const target = { engineId: engine?.engineId ?? "", generation: 1 };
  turn.markNew();
  turn.markRecorded(await recordTurn(ctx, turn, target));
  turn.markStreaming(Date.now());
  return turn;
}

async function loggedSeq(turnId: string): Promise<number> {
  const [row] = await world.database.raw<{ seq: number | null }[]>`
    select max(last_seq)::float8 as seq from turn_events where turn_id = ${turnId}`;
  return row?.seq ?? 0;
}

describe("while the database is away", () => {
  test("turns go on in memory, and nothing is lost when it comes back", async () => {
    await using link = await openFlakyLink(world.databaseUrl);
    const { ctx } = world.openProcess({ databaseUrl: link.url });
    world.engine.onCall = (call) => call.open();
    const input = world.input();
    await startTurn(ctx, input);
    const call = world.engine.calls.find((one) => one.body["task_id"] === input.request.taskId);
    await call?.write(delta("1"));
    await readAll(ctx, input, { stop: () => true });
    link.cut();
    for (const index of range(2, 300)) await call?.write(delta(`${index}`));
    const shown = await readAll(ctx, input, { stop: (read) => read.events.length === 300 });
    expect(seqsOf(shown)).toEqual(range(1, 300));
    await call?.write(completed());
    call?.end();
    link.restore();
    const read = await readAll(ctx, input);
    expect(seqsOf(read)).toEqual(range(1, 301));
    expect(read.end).toMatchObject({ status: "completed" });
    expect(seqsOf(await readAll(world.ctx, input))).toEqual(range(1, 301));
  });

  test("an engine that sends more than memory may hold has to wait, and then loses nothing", async () => {
    await using link = await openFlakyLink(world.databaseUrl);
    const clock = openMovableClock();
    const config = { turnIdleTimeoutMs: 600_000 };
    const { ctx } = world.openProcess({ databaseUrl: link.url, clock, config });
    world.engine.onCall = (call) => call.open();
    const input = world.input();
    await startTurn(ctx, input);
    const call = world.engine.calls.find((one) => one.body["task_id"] === input.request.taskId);
    await expect.poll(async () => (await getTurn(world.ctx, input)).status).toBe("streaming");
    const silent = await startSilent(ctx);
    link.cut();
    const piece = delta("x".repeat(50_000));
    for (let index = 0; index < 400; index += 1) call?.response.write(piece);
    const turn = ctx.turns.find(input.productId, input.turnId);
    await expect.poll(() => turn?.unwrittenBytes ?? 0).toBeGreaterThan(1024 * 1024);
    clock.advance(config.turnIdleTimeoutMs);
    // An engine that we do not read is not idle. An engine that we read, and that is silent, is.
    await expect.poll(() => silent?.hasEnd).toBe(true);
    expect(turn?.unwrittenBytes).toBeLessThan(2 * 1024 * 1024);
    expect(turn?.hasEnd).toBe(false);
    call?.response.write(completed());
    call?.end();
    link.restore();
    const read = await readAll(ctx, input);
    expect(seqsOf(read)).toEqual(range(1, 401));
    expect(read.end).toMatchObject({ status: "completed" });
  });

  test("commits whose reply is lost are repeated without effect", async () => {
    await ensureTurnPartitions(world.ctx.raw);
    await using link = await openFlakyLink(world.databaseUrl);
    const { ctx } = world.openProcess({ databaseUrl: link.url });
    world.engine.onCall = (call) => call.open();
    const input = world.input();
    await startTurn(ctx, input);
    const call = world.engine.calls.find((one) => one.body["task_id"] === input.request.taskId);
    for (let index = 1; index <= 5; index += 1) {
      const lost = link.loseNextReply();
      await call?.write(delta(`${index}`));
      await readAll(ctx, input, { afterSeq: index - 1, stop: () => true });
      await lost;
      await expect.poll(() => ctx.turns.find(input.productId, input.turnId)?.unwrittenBytes).toBe(0);
    }
    const lost = link.loseNextReply();
    await call?.write(completed());
    call?.end();
    expect((await readAll(ctx, input)).end).toMatchObject({ status: "completed", lastSeq: 7 });
    await lost;
    const read = await readAll(world.ctx, input);
    expect(seqsOf(read)).toEqual(range(1, 6));
    expect(read.gaps).toEqual([]);
  });

  test("a start whose row was written and whose reply was lost can be repeated", async () => {
    await using link = await openFlakyLink(world.databaseUrl);
    const { ctx } = world.openProcess({ databaseUrl: link.url });
    world.engine.onCall = streamOf(completed());
    // By now all connections are open and have prepared the statement, so the lost reply is its result.
    const earlier = range(1, 16).map(() => world.input());
    await Promise.all(earlier.map((input) => startTurn(ctx, input)));
    await Promise.all(earlier.map((input) => readAll(ctx, input)));
    const raw = interceptStatements(ctx.raw, TURN_BEGIN, (send) => {
      void link.loseNextReply();
      return send();
    });
    const input = world.input();
    await expect(startTurn({ ...ctx, raw }, input)).rejects.toThrow();
    expect(await startTurn(ctx, input)).toMatchObject({ created: true });
    expect((await readAll(ctx, input)).end).toMatchObject({ status: "completed" });
    expect(world.engine.calls.filter((call) => call.body["task_id"] === input.request.taskId)).toHaveLength(
      1,
    );
  });
});

/** The indexes of the turns that the owner still owned. */
async function listAppended(
  raw: RawSql,
  ownerReplica: string,
  appends: readonly TurnAppend[],
): Promise<number[]> {
  return [...(await appendToTurnLog(raw, { ownerReplica, logBytesPerHour: 2 ** 31 }, appends)).keys()];
}

describe("the append statement", () => {
  test("another owner or another fencing token writes nothing", async () => {
    const { owner, append } = await insertRow();
    const { raw } = world.database;
    expect(await listAppended(raw, crypto.randomUUID(), [append])).toEqual([]);
    expect(await listAppended(raw, owner, [{ ...append, fencingToken: 8 }])).toEqual([]);
    expect(await listAppended(raw, owner, [append])).toEqual([0]);
    expect(await listAppended(raw, owner, [{ ...append, fencingToken: 6 }, append])).toEqual([1]);
  });

  test("an overtaken append changes nothing, and a repeated one changes nothing more", async () => {
    const { owner, append } = await insertRow();
    const { raw } = world.database;
    const later: TurnAppend = {
      ...append,
      lastSeq: 4,
      status: "completed",
      end: '{"status":"completed","lastSeq":4}',
      chunks: [{ firstSeq: 1, lastSeq: 3, events: '[{"seq":1},{"seq":2},{"seq":3}]', engineEventId: "17" }],
    };
    const live = { ...later, lastSeq: 3, status: "streaming" as const, end: undefined };
    expect(await listAppended(raw, owner, [live])).toEqual([0]);
    expect(await listAppended(raw, owner, [append])).toEqual([]);
    expect(await listAppended(raw, owner, [later])).toEqual([0]);
    expect(await listAppended(raw, owner, [live])).toEqual([]);
    expect(await listAppended(raw, owner, [later])).toEqual([0]);
    const rows = await raw`
      select first_seq, last_seq, events, engine_event_id from turn_events where turn_id = ${append.turnId}`;
    expect([...rows]).toEqual([
      {
        first_seq: "1",
        last_seq: "3",
        events: '[{"seq":1},{"seq":2},{"seq":3}]',
        engine_event_id: "17",
      },
    ]);
  });
});

async function insertRow() {
  await ensureTurnPartitions(world.ctx.raw);
  const input = world.input();
  const engine = await world.addEngine(`append ${input.turnId}`);
  const owner = crypto.randomUUID();
  await insertTurn(world.database.raw, {
    productId: input.productId,
    turnId: input.turnId,
    userId: "ann",
    engineId: engine.engineId,
    generation: 1,
    taskId: "t",
    fingerprint: "f",
    startedBy: null,
    ownerReplica: owner,
    fencingToken: 7,
    reservedSeq: 1024,
  });
  const append: TurnAppend = {
    productId: input.productId,
    turnId: input.turnId,
    fencingToken: 7,
    lastSeq: 2,
    reservedSeq: 2000,
    bytes: 10,
    status: "streaming",
    end: undefined,
    chunks: [{ firstSeq: 1, lastSeq: 2, events: '[{"seq":1},{"seq":2}]', engineEventId: null }],
  };
  return { owner, append };
}

async function startSilent(ctx: WorldContext) {
  const input = world.input();
  await startTurn(ctx, input);
  return ctx.turns.find(input.productId, input.turnId);
}

async function partitions(of: TurnWorld) {
  return of.database.raw`select inhrelid from pg_inherits where inhparent = 'turn_events'::regclass`;
}
