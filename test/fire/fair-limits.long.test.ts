import { test } from "vitest";
import { proveFairLimits } from "./fair-limits.ts";

const TIMEOUT_MS = 600_000;

test(
  "64 callers of a product that flood every call fail no call of another product",
  async () => {
    await proveFairLimits({ limit: 500, callers: 64, rounds: 2 });
  },
  TIMEOUT_MS,
);
