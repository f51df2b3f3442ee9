import { assert, array, integer, property } from "fast-check";
import { expect, test } from "vitest";
import { chooseFairly } from "../../../server/turns/log/choose-fairly.ts";

const MIB = 1024 * 1024;
const ROOM = 8 * MIB;
const turnsOf = (...sizes: number[]) => sizes.map((unwrittenBytes) => ({ unwrittenBytes }));
const repeat = (count: number, size: number) => Array.from({ length: count }, () => size);

test("while there is room for all of them all are written, in order", () => {
  const due = turnsOf(3, 1, 2);
  expect([...chooseFairly(due, 6)]).toEqual(due);
});

test("those with little are written at once, however many floods wait before them", () => {
  const due = turnsOf(...repeat(100, MIB), ...repeat(1_000, 100));
  const chosen = new Set(chooseFairly(due, ROOM));
  expect(due.slice(100).filter((turn) => !chosen.has(turn))).toEqual([]);
});

test("nobody waits for good: with everybody full again at once each is written within a few commits", () => {
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

test("of floods the ones that wait longest are written too, be they the largest", () => {
  const due = turnsOf(...repeat(8, MIB), ...repeat(100, MIB / 2));
  const chosen = new Set(chooseFairly(due, ROOM));
  expect(due.slice(0, 4).filter((turn) => !chosen.has(turn))).toEqual([]);
});

test("a commit takes no more than its room and a turn, as long as two turns have room in half of it", () => {
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
