import { randomUUID } from "node:crypto";
import * as fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { isDatabaseUnavailable } from "../../../db/postgres-error.ts";
import { insertTurn } from "../../../db/turns.ts";
import { systemClock } from "../../../server/time/clock.ts";
import { RESERVE_AHEAD, type LiveTurn } from "../../../server/turns/model/live-turn.ts";
import { followTurn } from "../../../server/turns/read/follow-turn.ts";
import { takeOverTurns } from "../../../server/turns/take-over/take-over-turns.ts";
import type { TurnBatch, TurnEvent } from "../../../server/turns/read/turn-batch.ts";
import { cancelTurn } from "../../../server/turns/cancel-turn.ts";
import { retireTurns } from "../../../server/turns/log/retire-turns.ts";
import { CANCELLED, COMPLETED, type EndCause } from "../../../server/turns/model/turn-end.ts";
import { shiftDatabaseClock } from "../../support/shift-clock.ts";
import { openFlakyLink, type FlakyLink } from "../../support/flaky-link.ts";
import { getTurn } from "../../../server/turns/read/get-turn.ts";
import { completed, numbered, refuse, sse } from "../engine-double.ts";
import { openTurnWorld, type TurnProcess, type TurnWorld } from "../turn-world.ts";

let world: TurnWorld;
beforeAll(async () => {
  world = await openTurnWorld({ timing: { closeMs: 1 } });
});
afterAll(async () => world[Symbol.asyncDispose]());

type Step =
  | { do: "append"; count: number; size: number }
  | { do: "commit" | "loseReply" | "crash" | "recover" | "cancel" | "cancelElsewhere" | "trim" }
  | { do: "read"; reader: number; from: "owner" | "other"; batches: number };

const READERS = 3;
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constant("append" as const),
      count: fc.oneof(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 200, max: 1_500 })),
      size: fc.constantFrom(1, 30, 2_000),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom("commit" as const, "loseReply" as const) }) },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant("read" as const),
      reader: fc.nat(READERS - 1),
      from: fc.constantFrom("owner" as const, "other" as const),
      batches: fc.integer({ min: 1, max: 6 }),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constantFrom(
        "crash" as const,
        "recover" as const,
        "cancel" as const,
        "cancelElsewhere" as const,
        "trim" as const,
      ),
    }),
  },
);

interface Reader {
  cursor: number;
  items: TurnBatch[];
}

/** What has happened to the turn so far. */
interface Fate {
  /** What the owner has read of the engine, as the size of each event. */
  sizes: number[];
  /** The engine numbers its events. Then the turn goes on after the death of its owner. */
  isNumbered: boolean;
  /** Another replica has read the turn to its end. */
  isReadOn: boolean;
  /** `foreign`: another replica has ended the turn, which its owner may not know. */
  owner: "live" | "dead" | "ended" | "foreign";
  isCrashed: boolean;
  /** Another replica ended the turn without its engine. So its end comes after all reserved numbers, and those are lost. */
  isEndedElsewhere: boolean;
  isTrimmed: boolean;
}

/** Hours that the database's clock is ahead. They only grow, because all plays share the database. */
let hoursAhead = 0;

test("whatever is appended, committed, read, cut, killed, taken over, cancelled and trimmed, each reader gets each event once, in order, a gap for missing ones, and one end", async () => {
  const steps = fc.array(step, { minLength: 1, maxLength: 16 });
  // A failure prints its seed and its steps.
  await fc.assert(fc.asyncProperty(steps, fc.boolean(), fc.boolean(), play), { numRuns: 50 });
}, 300_000);

/** `sealTurns` is the owner's. Its successor always seals, so that some turns have rows of both kinds. */
async function play(steps: Step[], isNumbered: boolean, sealTurns: boolean): Promise<void> {
  // A link for each play: a killed owner may still be connecting, and its connection must not reach the next play.
  await using link = await openFlakyLink(world.databaseUrl);
  const owner = world.openProcess({ databaseUrl: link.url, config: { sealTurns } });
  const turn = await openLiveTurn(owner);
  const readers: Reader[] = Array.from({ length: READERS }, () => ({ cursor: 0, items: [] }));
  const fate: Fate = {
    sizes: [],
    isNumbered,
    isReadOn: false,
    owner: "live",
    isCrashed: false,
    isEndedElsewhere: false,
    isTrimmed: false,
  };
  for (const one of steps) {
    if (one.do === "read") {
      const reader = readers[one.reader];
      const from = one.from === "owner" && !fate.isCrashed ? owner : undefined;
      if (reader) await readSome(from, turn, reader, one.batches);
    } else await change({ owner, link, turn, fate }, one);
  }
  await end({ owner, link, turn, fate });
  for (const reader of readers) {
    await readSome(undefined, turn, reader, Infinity);
    check(reader, fate);
  }
  if (!fate.isCrashed) await kill(owner, link);
}

interface Play {
  owner: TurnProcess;
  link: FlakyLink;
  turn: LiveTurn;
  fate: Fate;
}

/** A step that does not apply to what has happened so far does nothing. */
async function change({ owner, link, turn, fate }: Play, one: Exclude<Step, { do: "read" }>): Promise<void> {
  const isAlive = fate.owner === "live" || (fate.owner === "foreign" && !fate.isCrashed);
  switch (one.do) {
    case "append":
      if (!isAlive || turn.isOver) return;
      for (let index = 0; index < one.count; index += 1) append(turn, fate, one.size);
      turn.announce();
      owner.ctx.turnLog.touch(turn);
      return;
    case "commit":
      if (isAlive)
        await expect.poll(() => turn.isOver || turn.unwrittenBytes === 0, { interval: 5 }).toBe(true);
      return;
    case "loseReply":
      if (isAlive && turn.unwrittenBytes > 0) void link.loseNextReply();
      return;
    case "crash":
      if (fate.isCrashed) return;
      await kill(owner, link);
      fate.isCrashed = true;
      if (fate.owner === "live") fate.owner = "dead";
      return;
    case "recover":
      if (fate.owner !== "dead") return;
      await takeOver(owner, turn, fate);
      return;
    case "cancel":
      if (fate.owner !== "live") return;
      await endByOwner(owner, turn, CANCELLED);
      fate.owner = "ended";
      return;
    case "cancelElsewhere":
      if (fate.owner === "ended" || fate.owner === "foreign") return;
      expect(await cancelTurn(world.ctx, keyOf(turn))).toMatchObject({ status: "cancelled" });
      fate.owner = "foreign";
      fate.isEndedElsewhere = true;
      return;
    case "trim": {
      hoursAhead += 5;
      await shiftDatabaseClock(world.databaseUrl, `${hoursAhead} hours`);
      await retireTurns(world.ctx);
      await world.ctx.dataKeys.maintain(world.ctx.config.turnRetentionMs);
      // The events of a live turn stay, however old they are.
      if (fate.owner === "ended" || fate.owner === "foreign") fate.isTrimmed = true;
      return;
    }
  }
}

/** Ends the turn if it has not ended, as its owner does, or as its successor does if the owner is dead. */
async function end({ owner, turn, fate }: Play): Promise<void> {
  if (fate.owner === "live") await endByOwner(owner, turn, COMPLETED);
  if (fate.owner === "dead") await takeOver(owner, turn, fate);
  if (fate.owner === "foreign") owner.ctx.turns.remove(turn);
}

async function endByOwner(owner: TurnProcess, turn: LiveTurn, cause: EndCause): Promise<void> {
  turn.end(cause);
  owner.ctx.turnLog.touch(turn);
  await turn.until("over");
  owner.ctx.turns.remove(turn);
}

const keyOf = ({ input: { productId, turnId } }: LiveTurn) => ({ productId, turnId });

/** Through the link, which never breaks a connection while postgres.js reads types. */
async function kill(owner: TurnProcess, link: FlakyLink): Promise<void> {
  link.cut();
  await expect.poll(() => link.connections, { interval: 5 }).toBe(0);
  await owner.kill();
}

async function openLiveTurn(owner: TurnProcess): Promise<LiveTurn> {
  const { turns, raw } = owner.ctx;
  const key = { productId: world.productId, turnId: randomUUID() };
  const about = { ...key, userId: "ann", taskId: randomUUID(), fingerprint: "f", startedBy: null };
  const turn = turns.open(about);
  const record = { engineId: world.engines[0]?.engineId ?? "", generation: 1 };
  const startedAt = await insertTurn(raw, {
    ...about,
    ...record,
    ownerReplica: owner.replicaId,
    fencingToken: turn.input.fencingToken,
    reservedSeq: RESERVE_AHEAD,
  });
  if (startedAt === undefined) throw new Error("the turn is taken");
  turn.markNew();
  turn.markRecorded({ ...record, startedAt });
  turn.markStreaming(Date.now());
  return turn;
}

const at = new Date(0).toISOString();
const textOf = (seq: number, size: number) => `${seq}:${"x".repeat(size)}`;

function append(turn: LiveTurn, { sizes, isNumbered }: Fate, size: number): void {
  sizes.push(size);
  const json = JSON.stringify(textOf(sizes.length, size));
  turn.append({ at, type: "message", json, ...(isNumbered && { id: `${sizes.length}` }) }, Date.now());
}

/** The next owner reads the turn on from the engine's replay, which has all its events and a few more. */
async function takeOver(owner: TurnProcess, turn: LiveTurn, fate: Fate): Promise<void> {
  const { productId, turnId } = keyOf(turn);
  const [row] = await world.database.raw<{ status: string; logged: boolean }[]>`
    select status, exists (select from turn_events where turn_id = ${turnId}) as logged
    from turns where product_id = ${productId} and id = ${turnId}`;
  if (fate.isNumbered) fate.sizes.push(1, 30, 1);
  world.engine.onReplay = (replay) => {
    if (!fate.isNumbered || replay.taskId !== turn.input.taskId) return refuse(404)(replay);
    replay.open();
    const after = Number(replay.lastEventId ?? 0);
    for (const [index, size] of fate.sizes.entries()) {
      const seq = index + 1;
      if (seq > after) replay.response.write(numbered(seq, sse("message", textOf(seq, size))));
    }
    replay.response.write(numbered(fate.sizes.length + 1, completed()));
    replay.end();
  };
  await takeOverTurns(world.ctx, [owner.replicaId]);
  await expect.poll(() => world.ctx.turns.find(productId, turnId), { interval: 5 }).toBeUndefined();
  const { status } = await getTurn(world.ctx, keyOf(turn));
  // Without an event in the log it is unknown whether the engine numbers its events.
  if (fate.isNumbered && row?.logged === true) expect(status).toBe("completed");
  fate.isReadOn = status === "completed";
  fate.isEndedElsewhere = !fate.isReadOn;
  fate.owner = "ended";
}

/** Reads up to so many batches, up to the end (a reader that has the end reads no more), or until there is nothing to read for now. */
async function readSome(
  process: TurnProcess | undefined,
  turn: LiveTurn,
  reader: Reader,
  batches: number,
): Promise<void> {
  if (reader.items.at(-1)?.end) return;
  const leaving = new AbortController();
  const ctx = {
    ...(process ?? world).ctx,
    // A reader of the log that would wait has read everything.
    clock: {
      ...systemClock,
      sleep: async () => {
        leaving.abort();
      },
    },
  };
  // So has a reader at the head that would wait.
  const read = turn.read.bind(turn);
  turn.read = (cursor) => {
    const step = read(cursor);
    if (step.kind === "wait") leaving.abort();
    return step;
  };
  try {
    let count = 0;
    for await (const batch of followTurn(ctx, {
      ...keyOf(turn),
      afterSeq: reader.cursor,
      signal: leaving.signal,
    })) {
      reader.items.push(batch);
      reader.cursor = batch.lastSeq;
      count += 1;
      if (count >= batches) break;
    }
  } catch (error) {
    // The lost reply may have been this reader's. It reads again later.
    if (!leaving.signal.aborted && !isDatabaseUnavailable(error)) throw error;
  } finally {
    turn.read = read;
  }
}

function check(reader: Reader, { sizes, isReadOn, isEndedElsewhere, isTrimmed }: Fate): void {
  let next = 1;
  for (const batch of reader.items) {
    if (batch.gap) {
      expect(batch.gap.fromSeq).toBe(next);
      expect(batch.gap.toSeq).toBeGreaterThanOrEqual(next);
      if (batch.gap.reason === "retention") expect(isTrimmed).toBe(true);
      else expect([batch.gap.reason, isEndedElsewhere]).toEqual(["lost", true]);
      next = batch.gap.toSeq + 1;
    }
    for (const line of batch.events) {
      const event = JSON.parse(line) as TurnEvent;
      expect(event.seq).toBe(next);
      const isLifecycle = isReadOn && next === sizes.length + 1;
      if (isLifecycle) expect(event.type).toBe("thread_lifecycle");
      else expect(event.data).toBe(textOf(next, sizes[next - 1] ?? 0));
      next += 1;
    }
    if (batch.end) {
      expect(batch.end.lastSeq).toBe(next);
      next += 1;
    }
    expect(batch.lastSeq).toBe(next - 1);
    expect(batch.events.length).toBeLessThanOrEqual(256);
  }
  const last = reader.items.at(-1)?.end;
  expect(last).toBeDefined();
  if (!isEndedElsewhere) expect(last?.lastSeq).toBe(sizes.length + (isReadOn ? 2 : 1));
  expect(reader.items.filter((batch) => batch.end)).toHaveLength(1);
}
