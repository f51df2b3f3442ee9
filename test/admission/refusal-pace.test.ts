import { expect, test } from "vitest";
import { MAX_DELAY_MS, RefusalPace } from "../../server/admission/refusal-pace.ts";

const take = (pace: RefusalPace, count: number, nowMs: number, product = "one") =>
  Array.from({ length: count }, () => pace.take(product, nowMs));

test("the first refusals of a product are answered at once, later ones every 20 ms", () => {
  expect(take(new RefusalPace(), 23, 5_000)).toEqual([...Array.from({ length: 20 }, () => 0), 20, 40, 60]);
});

test("one product's refusals delay no other product's", () => {
  const pace = new RefusalPace();
  take(pace, 100, 5_000);
  expect(pace.take("another", 5_000)).toBe(0);
});

test("no refusal waits longer than a second, and after a pause the burst is free again", () => {
  const pace = new RefusalPace();
  expect(Math.max(...take(pace, 10_000, 5_000))).toBe(MAX_DELAY_MS);
  expect(take(pace, 21, 5_000 + MAX_DELAY_MS + 400).slice(-2)).toEqual([0, 20]);
});
