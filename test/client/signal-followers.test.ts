import { getEventListeners } from "node:events";
import { expect, test } from "vitest";
import { SignalFollowers } from "../../client/signal-followers.ts";

const signals = new SignalFollowers();
const listenersOf = (signal: AbortSignal) => getEventListeners(signal, "abort").length;

test("a follower aborts with the first signal that aborts, and with its reason", () => {
  const [one, other] = [new AbortController(), new AbortController()];
  const followers = [new AbortController(), new AbortController()];
  for (const follower of followers) signals.follow(follower, [one.signal, undefined, other.signal]);
  other.abort("enough");
  one.abort("too late");
  expect(followers.map(({ signal }) => [signal.aborted, signal.reason as unknown])).toEqual([
    [true, "enough"],
    [true, "enough"],
  ]);
});

test("a signal that has aborted already aborts at once, and no listener is added to the others", () => {
  const other = new AbortController();
  const follower = new AbortController();
  const unfollow = signals.follow(follower, [other.signal, AbortSignal.abort("over")]);
  expect(follower.signal.reason).toBe("over");
  expect(listenersOf(other.signal)).toBe(0);
  unfollow();
});

test("a signal has one listener for all its followers, and none without followers", () => {
  const source = new AbortController();
  const followers = Array.from({ length: 50 }, () => new AbortController());
  const [last, ...others] = followers.map((follower) => signals.follow(follower, [source.signal]));
  expect(listenersOf(source.signal)).toBe(1);
  for (const unfollow of others) unfollow();
  for (const unfollow of others) unfollow();
  expect(listenersOf(source.signal)).toBe(1);
  last?.();
  expect(listenersOf(source.signal)).toBe(0);
  source.abort();
  expect(followers.filter(({ signal }) => signal.aborted)).toEqual([]);
});
