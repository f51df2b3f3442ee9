import { expect, test } from "vitest";
import { cutTurns } from "./cut-turns.ts";

// `raw-cuts.long.test.ts` cuts at every byte.
test("a connection that is cut within an answer loses nothing, doubles nothing, and starts the turn once", async () => {
  expect(await cutTurns(17)).toBeGreaterThan(700);
});
