import { expect, test } from "vitest";
import { FairSlots, type Slot } from "../../server/time/fair-slots.ts";

/** Takes slots for these keys in this order, and records the order in which they are given. */
function lineUp(slots: FairSlots, keys: readonly string[], signal?: AbortSignal) {
  const given: { key: string; slot: Slot }[] = [];
  const done = keys.map(async (key) => {
    const slot = await slots.take(key, signal);
    given.push({ key, slot });
  });
  return { given, done };
}

const tick = () => new Promise((resolve) => setImmediate(resolve));

test("at most so many are held at once, and a slot that is given back twice counts once", async () => {
  const slots = new FairSlots(2);
  const { given } = lineUp(slots, ["a", "a", "a", "a"]);
  await tick();
  expect(given).toHaveLength(2);
  given[0]?.slot.release();
  given[0]?.slot.release();
  await tick();
  expect(given).toHaveLength(3);
  for (const { slot } of given) slot.release();
  await tick();
  for (const { slot } of given) slot.release();
  expect(given).toHaveLength(4);
  expect([slots.tryTake(), slots.tryTake(), slots.tryTake()].map((slot) => slot !== undefined)).toEqual([
    true,
    true,
    false,
  ]);
});

test("keys take turns, however many wait for one key, and each key is served in its own order", async () => {
  const slots = new FairSlots(1);
  const held = slots.tryTake();
  const { given, done } = lineUp(slots, [...Array<string>(1_000).fill("flood"), "b", "c", "b"]);
  held?.release();
  for (let count = 1; count <= done.length; count += 1) {
    await tick();
    expect(given).toHaveLength(count);
    given[count - 1]?.slot.release();
  }
  expect(given.slice(0, 6).map(({ key }) => key)).toEqual(["flood", "b", "c", "flood", "b", "flood"]);
});

test("work that leaves the line takes no slot", async () => {
  const slots = new FairSlots(1);
  const held = slots.tryTake();
  const leaving = new AbortController();
  const left = lineUp(slots, ["a", "b"], leaving.signal);
  const stays = lineUp(slots, ["a"]);
  leaving.abort(new Error("left"));
  for (const done of left.done) await expect(done).rejects.toThrow("left");
  held?.release();
  await Promise.all(stays.done);
  await expect(slots.take("a", leaving.signal)).rejects.toThrow("left");
});
