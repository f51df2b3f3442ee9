import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { afterAll, beforeAll, expect, test } from "vitest";
import { followTurn } from "../../../server/turns/read/follow-turn.ts";
import type { ReaderRoom } from "../../../server/turns/read/reader-room.ts";
import type { TurnBatch } from "../../../server/turns/read/turn-batch.ts";
import { startTurn } from "../../../server/turns/start/start-turn.ts";
import { completed, delta } from "../engine-double.ts";
import { openTurnWorld, type TurnWorld } from "../turn-world.ts";

setFlagsFromString("--expose-gc");
const collectGarbage = runInNewContext("gc") as () => void;

let world: TurnWorld;
beforeAll(async () => {
  world = await openTurnWorld();
});
afterAll(async () => world[Symbol.asyncDispose]());

/** A connection that takes one batch, and then nothing until `open`. */
function openRoom(): ReaderRoom & { open(): void; fill(): void } {
  let opened = Promise.withResolvers<void>();
  let hasRoom = true;
  return {
    get hasRoom() {
      return hasRoom;
    },
    begin: () => undefined,
    untilRoom: async () => opened.promise,
    fill: () => {
      hasRoom = false;
      opened = Promise.withResolvers();
    },
    open: () => {
      hasRoom = true;
      opened.resolve();
    },
  };
}

/** Reads as a stream does: without a variable that holds the last batch. */
async function openReader() {
  world.engine.onCall = (call) => call.open();
  const input = world.input();
  await startTurn(world.ctx, input);
  const call = await world.engine.callOf(input.request.taskId);
  const room = openRoom();
  const leaving = new AbortController();
  const batches = followTurn(world.ctx, { ...input, afterSeq: 0, signal: leaving.signal, room });
  const seqs: number[] = [];
  let end: TurnBatch["end"];
  let lastBatch: WeakRef<TurnBatch> | undefined;
  const take = ({ value, done }: IteratorResult<TurnBatch, void>) => {
    if (value === undefined || done === true) return false;
    for (let seq = (seqs.at(-1) ?? 0) + 1; seqs.length < value.lastSeq; seq += 1) seqs.push(seq);
    end = value.end;
    lastBatch = new WeakRef(value);
    return true;
  };
  const reading = (async () => {
    while (take(await batches.next())) {
      // The connection is full after the first batch.
      if (seqs.length === 1) room.fill();
    }
  })();
  const turn = world.ctx.turns.find(input.productId, input.turnId);
  if (turn === undefined) throw new Error("the turn is not live");
  return {
    call,
    room,
    leaving,
    reading,
    seqs,
    turn: new WeakRef(turn),
    batch: () => lastBatch?.deref(),
    end: () => end,
  };
}

test("a reader without room holds neither a batch nor its turn, and later gets every event", async () => {
  const { call, room, reading, seqs, turn, batch, end } = await openReader();
  await call.write(delta("first"));
  await expect.poll(() => seqs).toEqual([1]);
  for (let seq = 2; seq <= 500; seq += 1) await call.write(delta("more"));
  await call.write(completed());
  call.end();
  await expect.poll(() => world.ctx.turns.size).toBe(0);
  const isGone = () => {
    collectGarbage();
    return [turn.deref() === undefined, batch() === undefined];
  };
  await expect.poll(isGone).toEqual([true, true]);
  expect(seqs).toEqual([1]);
  room.open();
  await reading;
  expect(seqs).toHaveLength(502);
  expect(end()).toMatchObject({ status: "completed", lastSeq: 502 });
});

test("a reader without room leaves as soon as its signal aborts", async () => {
  const { call, leaving, reading, seqs } = await openReader();
  await call.write(delta("first"));
  await expect.poll(() => seqs).toEqual([1]);
  leaving.abort(new Error("gone"));
  await expect(reading).rejects.toThrow("gone");
  await call.write(completed());
  call.end();
});
