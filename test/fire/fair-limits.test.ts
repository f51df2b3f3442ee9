import { test } from "vitest";
import { proveFairLimits } from "./fair-limits.ts";

test("a product that floods every call beyond its limits fails no call of another product", async () => {
  await proveFairLimits({ limit: 10, callers: 2, rounds: 1 });
});
