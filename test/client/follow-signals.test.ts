import { getEventListeners } from "node:events";
import { expect, test } from "vitest";
import { followSignals } from "../../client/follow-signals.ts";

const listenersOf = (signal: AbortSignal) => getEventListeners(signal, "abort").length;

test("whoever follows is aborted by the first that aborts, with its reason", () => {
  const [one, other] = [new AbortController(), new AbortController()];
  const followers = [new AbortController(), new AbortController()];
  for (const follower of followers) followSignals(follower, [one.signal, undefined, other.signal]);
  other.abort("enough");
  one.abort("too late");
  expect(followers.map(({ signal }) => [signal.aborted, signal.reason as unknown])).toEqual([
    [true, "enough"],
    [true, "enough"],
  ]);
});

test("what has aborted already aborts at once, and the others are not listened to", () => {
  const other = new AbortController();
  const follower = new AbortController();
  const unfollow = followSignals(follower, [other.signal, AbortSignal.abort("over")]);
  expect(follower.signal.reason).toBe("over");
  expect(listenersOf(other.signal)).toBe(0);
  unfollow();
});

test("a signal has one listener of ours, however many follow it, and none when nobody does", () => {
  const source = new AbortController();
  const followers = Array.from({ length: 50 }, () => new AbortController());
  const [last, ...others] = followers.map((follower) => followSignals(follower, [source.signal]));
  expect(listenersOf(source.signal)).toBe(1);
  for (const unfollow of others) unfollow();
  for (const unfollow of others) unfollow();
  expect(listenersOf(source.signal)).toBe(1);
  last?.();
  expect(listenersOf(source.signal)).toBe(0);
  source.abort();
  expect(followers.filter(({ signal }) => signal.aborted)).toEqual([]);
});
