import { getEventListeners } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { Deadline } from "../../server/time/deadline.ts";

test("a deadline that passes aborts with a TimeoutError", async () => {
  using deadline = new Deadline(10);
  await expect.poll(() => deadline.signal.aborted).toBe(true);
  expect(deadline.hasPassed).toBe(true);
  expect(deadline.signal.reason).toMatchObject({ name: "TimeoutError", message: "10 ms have passed" });
});

test("a signal that aborts first gives its reason, and the deadline never passes", async () => {
  const [first, second] = [new AbortController(), new AbortController()];
  using deadline = new Deadline(20, [first.signal, undefined, second.signal]);
  second.abort("left");
  first.abort("too late");
  await sleep(60);
  expect(deadline.signal.reason).toBe("left");
  expect(deadline.hasPassed).toBe(false);
});

test("a signal that has already aborted aborts the deadline at once", () => {
  using deadline = new Deadline(60_000, [AbortSignal.abort("gone")]);
  expect(deadline.signal.reason).toBe("gone");
});

test("dispose removes the listeners and never aborts", async () => {
  const other = new AbortController();
  const deadline = new Deadline(10, [other.signal]);
  deadline[Symbol.dispose]();
  expect(getEventListeners(other.signal, "abort")).toEqual([]);
  await sleep(40);
  other.abort();
  expect(deadline.signal.aborted).toBe(false);
});
