import { assert, array, integer, property } from "fast-check";
import { expect, test } from "vitest";
import { chooseFairly } from "../../../server/turns/log/choose-fairly.ts";

const MIB = 1024 * 1024;
const ROOM = 8 * MIB;
const turnsOf = (...sizes: number[]) => sizes.map((unwrittenBytes) => ({ unwrittenBytes }));
const repeat = (count: number, size: number) => Array.from({ length: count }, () => size);

test("turns that all fit are all chosen, in order", () => {
  const due = turnsOf(3, 1, 2);
  expect([...chooseFairly(due, 6)]).toEqual(due);
});

test("turns with little to write are chosen at once, however many floods wait before them", () => {
  const due = turnsOf(...repeat(100, MIB), ...repeat(1_000, 100));
  const chosen = new Set(chooseFairly(due, ROOM));
  expect(due.slice(100).filter((turn) => !chosen.has(turn))).toEqual([]);
});

test("no turn waits for ever: even if all turns are full again at once, each is chosen within a few commits", () => {
  assert(
    property(array(integer({ min: 1, max: 12 * MIB }), { minLength: 1, maxLength: 60 }), (sizes) => {
      let waiting = turnsOf(...sizes);
      const unwritten = new Set(waiting);
      for (let commit = 0; commit <= sizes.length; commit += 1) {
        const chosen = new Set(chooseFairly(waiting, ROOM));
        for (const turn of chosen) unwritten.delete(turn);
        waiting = [...waiting.filter((turn) => !chosen.has(turn)), ...chosen];
      }
      return unwritten.size === 0;
    }),
  );
});

test("the floods that waited longest are chosen too, even if they are the largest", () => {
  const due = turnsOf(...repeat(8, MIB), ...repeat(100, MIB / 2));
  const chosen = new Set(chooseFairly(due, ROOM));
  expect(due.slice(0, 4).filter((turn) => !chosen.has(turn))).toEqual([]);
});

test("a commit exceeds its room by less than one turn, if half of the room holds two turns", () => {
  assert(
    property(array(integer({ min: 1, max: 2 * MIB }), { maxLength: 60 }), (sizes) => {
      const bytes = [...chooseFairly(turnsOf(...sizes), ROOM)].reduce(
        (sum, turn) => sum + turn.unwrittenBytes,
        0,
      );
      return bytes < ROOM + 2 * MIB;
    }),
  );
});
