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
import { COMPLETED } from "../../../server/turns/model/turn-end.ts";
import { openFlakyLink, type FlakyLink } from "../../support/flaky-link.ts";
import { openTurnWorld, type TurnProcess, type TurnWorld } from "../turn-world.ts";

let world: TurnWorld;
beforeAll(async () => {
  world = await openTurnWorld({ timing: { closeMs: 1 } });
});
afterAll(async () => world[Symbol.asyncDispose]());

type Step =
  | { do: "append"; count: number; size: number }
  | { do: "commit" | "loseReply" | "crash" }
  | { do: "read"; reader: number; from: "owner" | "other"; batches: number };

const READERS = 3;
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant("append" as const),
      count: fc.oneof(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 200, max: 1_500 })),
      size: fc.constantFrom(1, 30, 2_000),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom("commit" as const, "loseReply" as const) }) },
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constant("read" as const),
      reader: fc.nat(READERS - 1),
      from: fc.constantFrom("owner" as const, "other" as const),
      batches: fc.integer({ min: 1, max: 6 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("crash" as const) }) },
);

interface Reader {
  cursor: number;
  items: TurnBatch[];
}

test("whatever is appended, committed, cut and killed, each reader gets each event once, in order, and a gap for lost ones", async () => {
  const steps = fc.array(step, { minLength: 1, maxLength: 14 });
  await fc.assert(fc.asyncProperty(steps, play), { numRuns: 40 });
}, 300_000);

async function play(steps: Step[]): Promise<void> {
  // A link for each play: a killed owner may still be connecting, and its connection must not reach the next play.
  await using link = await openFlakyLink(world.databaseUrl);
  const owner = world.openProcess({ databaseUrl: link.url });
  const turn = await openLiveTurn(owner);
  const readers: Reader[] = Array.from({ length: READERS }, () => ({ cursor: 0, items: [] }));
  let appended = 0;
  let isDead = false;
  for (const one of steps) {
    switch (one.do) {
      case "append":
        if (isDead) break;
        for (let index = 0; index < one.count; index += 1) append(turn, (appended += 1), one.size);
        turn.announce();
        owner.ctx.turnLog.touch(turn);
        break;
      case "commit":
        if (!isDead) await expect.poll(() => turn.unwrittenBytes, { interval: 5 }).toBe(0);
        break;
      case "loseReply":
        if (!isDead && turn.unwrittenBytes > 0) void link.loseNextReply();
        break;
      case "crash":
        if (!isDead) await kill(owner, link);
        isDead = true;
        break;
      case "read": {
        const reader = readers[one.reader];
        if (reader)
          await readSome(one.from === "owner" && !isDead ? owner : undefined, turn, reader, one.batches);
        break;
      }
    }
  }
  if (isDead) await takeOverTurns(world.ctx, [owner.replicaId]);
  else {
    turn.end(COMPLETED);
    owner.ctx.turnLog.touch(turn);
    await turn.until("over");
    owner.ctx.turns.remove(turn);
  }
  for (const reader of readers) {
    await readSome(undefined, turn, reader, Infinity);
    check(reader, appended, isDead);
  }
  if (!isDead) await kill(owner, link);
}

/** Through the link, which never breaks a connection while postgres.js reads types. */
async function kill(owner: TurnProcess, link: FlakyLink): Promise<void> {
  link.cut();
  await expect.poll(() => link.connections, { interval: 5 }).toBe(0);
  await owner.kill();
}

async function openLiveTurn(owner: TurnProcess): Promise<LiveTurn> {
  const { turns, raw } = owner.ctx;
  const key = { productId: world.productId, turnId: randomUUID() };
  const about = { ...key, userId: "ann", taskId: randomUUID(), fingerprint: "f" };
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

function append(turn: LiveTurn, seq: number, size: number): void {
  const data = textOf(seq, size);
  turn.append({ at, type: "message", json: JSON.stringify(data) }, Date.now());
}

/** Reads up to so many batches, up to the end, or until there is nothing to read for now. */
async function readSome(
  process: TurnProcess | undefined,
  turn: LiveTurn,
  reader: Reader,
  batches: number,
): Promise<void> {
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
  const key = { productId: turn.input.productId, turnId: turn.input.turnId };
  // So has a reader at the head that would wait.
  const read = turn.read.bind(turn);
  turn.read = (cursor) => {
    const step = read(cursor);
    if (step.kind === "wait") leaving.abort();
    return step;
  };
  try {
    let count = 0;
    for await (const batch of followTurn(ctx, { ...key, afterSeq: reader.cursor, signal: leaving.signal })) {
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

function check(reader: Reader, appended: number, isDead: boolean): void {
  let next = 1;
  for (const batch of reader.items) {
    if (batch.gap) {
      expect(batch.gap).toMatchObject({ fromSeq: next, reason: "lost" });
      expect(isDead).toBe(true);
      next = batch.gap.toSeq + 1;
    }
    for (const line of batch.events) {
      const event = JSON.parse(line) as TurnEvent;
      expect(event.seq).toBe(next);
      expect(String(event.data).startsWith(`${next}:`)).toBe(true);
      next += 1;
    }
    if (batch.end) {
      expect(batch.end.lastSeq).toBe(next);
      next += 1;
    }
    expect(batch.lastSeq).toBe(next - 1);
    expect(batch.events.length).toBeLessThanOrEqual(256);
  }
  const end = reader.items.at(-1)?.end;
  expect(end).toBeDefined();
  if (!isDead) expect(end?.lastSeq).toBe(appended + 1);
  expect(reader.items.filter((batch) => batch.end)).toHaveLength(1);
}
