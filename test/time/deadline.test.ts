import { getEventListeners } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { Deadline } from "../../server/time/deadline.ts";

test("a deadline that passes aborts with a TimeoutError, and says so", async () => {
  using deadline = new Deadline(10);
  await expect.poll(() => deadline.signal.aborted).toBe(true);
  expect(deadline.hasPassed).toBe(true);
  expect(deadline.signal.reason).toMatchObject({ name: "TimeoutError", message: "10 ms have passed" });
});

test("another signal that aborts first hands its reason on, and the deadline does not pass any more", async () => {
  const [first, second] = [new AbortController(), new AbortController()];
  using deadline = new Deadline(20, [first.signal, undefined, second.signal]);
  second.abort("left");
  first.abort("too late");
  await sleep(60);
  expect(deadline.signal.reason).toBe("left");
  expect(deadline.hasPassed).toBe(false);
});

test("a signal that had aborted before counts at once", () => {
  using deadline = new Deadline(60_000, [AbortSignal.abort("gone")]);
  expect(deadline.signal.reason).toBe("gone");
});

test("disposing leaves no listener, and the signal as it is", async () => {
  const other = new AbortController();
  const deadline = new Deadline(10, [other.signal]);
  deadline[Symbol.dispose]();
  expect(getEventListeners(other.signal, "abort")).toEqual([]);
  await sleep(40);
  other.abort();
  expect(deadline.signal.aborted).toBe(false);
});
