import { expect, test } from "vitest";
import { isDeeperThan } from "../../server/json/json-depth.ts";

const nested = (depth: number): unknown => JSON.parse(`${'{"a":['.repeat(depth)}${"]}".repeat(depth)}`);

test("the depth counts arrays and objects along the deepest branch", () => {
  expect(isDeeperThan("text", 0)).toBe(false);
  expect(isDeeperThan(null, 0)).toBe(false);
  expect(isDeeperThan([], 0)).toBe(true);
  expect(isDeeperThan({ flat: 1, deep: [[1]] }, 3)).toBe(false);
  expect(isDeeperThan({ flat: 1, deep: [[1]] }, 2)).toBe(true);
});

test("a million levels do not overflow the stack", () => {
  expect(isDeeperThan(nested(500_000), 1_000_000)).toBe(false);
  expect(isDeeperThan(nested(500_000), 999_999)).toBe(true);
});
