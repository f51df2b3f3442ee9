import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Clock } from "../../../server/time/clock.ts";
import { DomainError } from "../../../server/errors.ts";
import { cancelTurn } from "../../../server/turns/cancel-turn.ts";
import { drainTurns } from "../../../server/turns/drain-turns.ts";
import { getTurn } from "../../../server/turns/read/get-turn.ts";
import { takeOverTurns } from "../../../server/turns/take-over/take-over-turns.ts";
import { startTurn } from "../../../server/turns/start/start-turn.ts";
import { completed, delta, streamOf } from "../engine-double.ts";
import { interceptStatements, LOG_COMMIT, TURN_BEGIN } from "../intercept-statements.ts";
import { openTurnWorld, readAll, seqsOf, type TurnWorld } from "../turn-world.ts";

let world: TurnWorld;
beforeAll(async () => {
  world = await openTurnWorld();
});
afterAll(async () => world[Symbol.asyncDispose]());

const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, index) => from + index);

/** A turn that streams what the test writes. */
async function openTurn(ctx = world.ctx) {
  world.engine.onCall = (call) => call.open();
  const input = world.input();
  await startTurn(ctx, input);
  const call = world.engine.calls.find((one) => one.body["task_id"] === input.request.taskId);
  if (!call) throw new Error("the engine was not called");
  return { input, call };
}

describe("cursors", () => {
  test("a reader gets the events after its cursor, whatever the cursor is", async () => {
    world.engine.onCall = streamOf(...range(1, 600).map((index) => delta(`${index}`)), completed());
    const input = world.input();
    await startTurn(world.ctx, input);
    for (const afterSeq of [0, 1, 255, 256, 257, 599, 600]) {
      expect(seqsOf(await readAll(world.ctx, input, { afterSeq }))).toEqual(range(afterSeq + 1, 601));
    }
  });

  test("a cursor at or past the end gets only the end again", async () => {
    world.engine.onCall = streamOf(delta("a"), completed());
    const input = world.input();
    await startTurn(world.ctx, input);
    const { end } = await readAll(world.ctx, input);
    expect(end?.lastSeq).toBe(3);
    for (const afterSeq of [2, 3, 4, 1_000_000]) {
      expect((await readAll(world.ctx, input, { afterSeq })).batches).toEqual([
        { lastSeq: 3, events: [], end },
      ]);
    }
  });

  test("many readers at once, even slow ones, each get every event once", async () => {
    const { input, call } = await openTurn();
    const readers = range(1, 10).map((index) => readAll(world.ctx, input, { afterSeq: index % 3 }));
    for (let index = 1; index <= 2_000; index += 1) call.response.write(delta(`${index}`));
    await call.write(completed());
    call.end();
    const reads = await Promise.all(readers);
    reads.forEach((read, index) => expect(seqsOf(read)).toEqual(range(((index + 1) % 3) + 1, 2_001)));
  });

  test("readers of a quiet stream get each event at once", async () => {
    // No event is written before readers got all of them.
    const isShown = Promise.withResolvers<void>();
    const { ctx } = world.openProcess({
      wrapRaw: (raw) =>
        interceptStatements(raw, LOG_COMMIT, async (send) => {
          await isShown.promise;
          return send();
        }),
    });
    const { input, call } = await openTurn(ctx);
    for (let seq = 1; seq <= 3; seq += 1) {
      const reading = readAll(ctx, input, { afterSeq: seq - 1, stop: () => true });
      await call.write(delta("x"));
      expect(seqsOf(await reading)).toEqual([seq]);
    }
    isShown.resolve();
    call.end();
  });

  test("a cursor past the log but within the reserved numbers waits for the events after it", async () => {
    const { input, call } = await openTurn();
    const reading = readAll(world.ctx, input, { afterSeq: 3 });
    for (let index = 1; index <= 5; index += 1) await call.write(delta(`${index}`));
    await call.write(completed());
    call.end();
    const read = await reading;
    expect(seqsOf(read)).toEqual([4, 5, 6]);
    expect(read.gaps).toEqual([]);
  });

  test("a cursor that the turn never gave out is a typed gap, then the stream goes on", async () => {
    const { input, call } = await openTurn();
    await call.write(delta("a"));
    await readAll(world.ctx, input, { stop: () => true });
    const reading = readAll(world.ctx, input, { afterSeq: 1_000_000 });
    await call.write(delta("b"));
    await call.write(completed());
    call.end();
    const read = await reading;
    expect(read.gaps).toEqual([{ fromSeq: 2, toSeq: 1_000_000, reason: "unknown_cursor" }]);
    expect(seqsOf(read)).toEqual([2, 3]);
    expect(read.end).toMatchObject({ status: "completed" });
  });

  test("a reader's signal ends its wait, and has no effect on the turn", async () => {
    const { input, call } = await openTurn();
    const leaving = new AbortController();
    const reading = readAll(world.ctx, input, { signal: leaving.signal });
    leaving.abort(new Error("gone"));
    await expect(reading).rejects.toThrow("gone");
    await call.write(completed());
    call.end();
    expect((await readAll(world.ctx, input)).end).toMatchObject({ status: "completed" });
  });

  test("a read of the log that outlives the lease leaves no pending wait", async () => {
    const { input, call } = await openTurn();
    const other = world.openProcess();
    const hasRead = Promise.withResolvers<void>();
    const refusal = new DomainError("DATABASE_UNAVAILABLE", "the lease is lost");
    const lease = {
      run: async <T>(work: () => Promise<T>): Promise<T> => {
        void work().then(() => hasRead.resolve());
        throw refusal;
      },
    };
    const leaving = new AbortController();
    const reading = readAll({ ...other.ctx, lease }, input, { signal: leaving.signal });
    await expect(reading).rejects.toBe(refusal);
    await hasRead.promise;
    // A pending wait would reject now. Unhandled, the rejection would fail the test run.
    leaving.abort();
    await call.write(completed());
    call.end();
    expect((await readAll(other.ctx, input)).end).toMatchObject({ status: "completed" });
  });

  test("a reader that comes while the turn starts gets the events as they come", async () => {
    const isWritten = Promise.withResolvers<void>();
    const isSeen = Promise.withResolvers<void>();
    const { ctx } = world.openProcess({
      wrapRaw: (raw) =>
        interceptStatements(raw, TURN_BEGIN, async (send) => {
          const row = await send();
          isWritten.resolve();
          await isSeen.promise;
          return row;
        }),
    });
    // As if the poll for a turn of another replica never came.
    const sleep: Clock["sleep"] = async (ms, signal) => ctx.clock.sleep(ms < 1_000 ? ms : 3_600_000, signal);
    const clock = { ...ctx.clock, sleep };
    const input = world.input();
    world.engine.onCall = streamOf(delta("a"), completed());
    const starting = startTurn(ctx, input);
    await isWritten.promise;
    const lease = {
      run: async <T>(work: () => Promise<T>): Promise<T> => {
        const result = await work();
        isSeen.resolve();
        return result;
      },
    };
    const read = await readAll({ ...ctx, clock, lease }, input);
    expect(seqsOf(read)).toEqual([1, 2]);
    await starting;
  });

  test("readers get the end only after its commit", async () => {
    const { input, call } = await openTurn();
    await call.write(completed());
    call.end();
    await readAll(world.ctx, input);
    const [row] = await world.database.raw`select "end", last_seq from turns where id = ${input.turnId}`;
    expect(row?.["end"]).toContain("completed");
  });
});

describe("dead owners", () => {
  test("a turn whose owner was killed ends interrupted, past everything that was delivered", async () => {
    const dead = world.openProcess();
    const { input, call } = await openTurn(dead.ctx);
    await call.write(delta("a"));
    await readAll(dead.ctx, input, { stop: (read) => read.events.length === 1 });
    await expect.poll(async () => (await loggedSeq(input.turnId)) ?? 0).toBe(1);
    await dead.kill();

    const waiting = readAll(world.ctx, input, { afterSeq: 1 });
    expect((await takeOverTurns(world.ctx, "all but me")).ended).toBeGreaterThanOrEqual(1);
    const read = await readAll(world.ctx, input);
    const reserved = (read.end?.lastSeq ?? 0) - 1;
    expect(seqsOf(read)).toEqual([1]);
    expect(reserved).toBeGreaterThanOrEqual(1024);
    expect(read.gaps).toEqual([{ fromSeq: 2, toSeq: reserved, reason: "lost" }]);
    expect(read.end).toMatchObject({ status: "interrupted", reason: "OWNER_LOST", engineMayContinue: true });
    expect((await waiting).end).toEqual(read.end);
    expect(await getTurn(world.ctx, input)).toMatchObject({
      status: "interrupted",
      lastSeq: reserved + 1,
      end: read.end,
    });
    // For a reader that had every reserved number nothing is missing.
    expect((await readAll(world.ctx, input, { afterSeq: reserved })).gaps).toEqual([]);
    expect(await startTurn(world.ctx, input)).toMatchObject({ created: false, status: "interrupted" });
  });

  test("a turn in `starting` ends failed, its outcome unknown", async () => {
    const dead = world.openProcess({ timing: { startAnswerMs: 10 } });
    world.engine.onCall = () => {};
    const input = world.input();
    expect(await startTurn(dead.ctx, input)).toMatchObject({ status: "starting" });
    await dead.kill();
    expect(await takeOverTurns(world.ctx, [dead.replicaId])).toEqual({ taken: 1, ended: 0 });
    expect((await readAll(world.ctx, input)).end).toMatchObject({
      status: "failed",
      reason: "OUTCOME_UNKNOWN",
      engineMayContinue: true,
    });
  });

  test("a takeover changes no turn of its own replica or of a replica that was not declared dead", async () => {
    const other = world.openProcess();
    const theirs = await openTurn(other.ctx);
    const mine = await openTurn();
    const none = { taken: 0, ended: 0 };
    expect(await takeOverTurns(world.ctx, [world.ctx.replica.id])).toEqual(none);
    expect(await takeOverTurns(world.ctx, [])).toEqual(none);
    for (const { input, call } of [theirs, mine]) {
      await call.write(completed());
      call.end();
      expect((await readAll(world.ctx, input)).end).toMatchObject({ status: "completed" });
    }
  });

  test("an owner that comes back after it was declared dead stops, and its readers get the recorded end", async () => {
    const zombie = world.openProcess();
    const { input, call } = await openTurn(zombie.ctx);
    await call.write(delta("a"));
    const reading = readAll(zombie.ctx, input);
    await expect.poll(async () => (await loggedSeq(input.turnId)) ?? 0).toBe(1);
    await takeOverTurns(world.ctx, [zombie.replicaId]);
    await call.write(delta("never in the log"));
    const read = await reading;
    expect(read.end).toMatchObject({ status: "interrupted", reason: "OWNER_LOST" });
    expect(read.end?.lastSeq).toBeGreaterThan(Math.max(...seqsOf(read)));
    expect(await loggedSeq(input.turnId)).toBe(1);
    await expect.poll(() => call.isClosed).toBe(true);
    expect(zombie.ctx.turns.find(input.productId, input.turnId)).toBeUndefined();
  });

  test("a turn of another replica is read from the log as it grows, and a cancel takes it over", async () => {
    const other = world.openProcess();
    const { input, call } = await openTurn(other.ctx);
    await call.write(delta("a"));
    const first = await readAll(world.ctx, input, { stop: (read) => read.events.length === 1 });
    expect(seqsOf(first)).toEqual([1]);
    expect(await cancelTurn(world.ctx, input)).toMatchObject({
      status: "cancelled",
      end: { reason: "CANCELLED" },
    });
    await call.write(delta("b"));
    await expect.poll(() => call.isClosed).toBe(true);
    expect((await readAll(other.ctx, input)).end).toMatchObject({ status: "cancelled" });
  });
});

describe("handing over", () => {
  test("readers of a replica that hands over get an AbortError, and resume elsewhere by cursor", async () => {
    const leaving = world.openProcess();
    const { input, call } = await openTurn(leaving.ctx);
    await call.write(delta("a"));
    const seen: number[] = [];
    const reading = readAll(leaving.ctx, input, {
      stop: (read) => {
        seen.splice(0, seen.length, ...seqsOf(read));
        return false;
      },
    });
    await expect.poll(() => seen).toEqual([1]);
    leaving.ctx.turns.handOver();
    await expect(reading).rejects.toMatchObject({ name: "AbortError" });
    await expect(readAll(leaving.ctx, input)).rejects.toMatchObject({ name: "AbortError" });
    await call.write(completed());
    call.end();
    const rest = await readAll(world.ctx, input, { afterSeq: 1 });
    expect(seqsOf(rest)).toEqual([2]);
    expect(rest.end).toMatchObject({ status: "completed" });
  });

  test("a drain refuses new turns, waits for live ones, ends the rest, and all are committed", async () => {
    const leaving = world.openProcess();
    const quick = await openTurn(leaving.ctx);
    const slow = await openTurn(leaving.ctx);
    await slow.call.write(delta("a"));
    await readAll(leaving.ctx, slow.input, { stop: () => true });
    const hurry = new AbortController();
    const drained = drainTurns(leaving.ctx, 600_000, hurry.signal);
    await expect(startTurn(leaving.ctx, world.input())).rejects.toMatchObject({ reason: "DRAINING" });
    expect(await startTurn(leaving.ctx, slow.input)).toMatchObject({ created: false });
    await quick.call.write(completed());
    quick.call.end();
    await expect.poll(() => leaving.ctx.turns.size).toBe(1);
    hurry.abort();
    await drained;
    expect(await getTurn(world.ctx, quick.input)).toMatchObject({ status: "completed" });
    expect(await getTurn(world.ctx, slow.input)).toMatchObject({
      status: "interrupted",
      lastSeq: 2,
      end: { reason: "DRAINING", engineMayContinue: true },
    });
    expect(leaving.ctx.turns.size).toBe(0);
  });

  test("a turn that waits for its engine at the drain is refused with DRAINING", async () => {
    const engine = await world.addEngine("gated");
    const gate = await world.holds.closeGate(engine.engineId, {
      whenBusy: "wait",
      deadlineMs: 0,
      reason: "ENGINE_STOPPED",
    });
    const leaving = world.openProcess();
    const starting = startTurn(leaving.ctx, { ...world.input(), userId: "gated" });
    const refused = expect(starting).rejects.toMatchObject({ reason: "DRAINING" });
    await expect.poll(() => leaving.ctx.turns.size).toBe(1);
    await drainTurns(leaving.ctx, 0);
    await refused;
    gate[Symbol.dispose]();
  });
});

async function loggedSeq(turnId: string): Promise<number | undefined> {
  const [row] = await world.database.raw<{ last: number }[]>`
    select max(last_seq)::float8 as last from turn_events where turn_id = ${turnId}`;
  return row?.last;
}
