import { expect, test } from "vitest";
import { cutTurns } from "./cut-turns.ts";

test("a connection that is cut at any byte of the answer loses nothing, doubles nothing, and starts the turn once", async () => {
  // A head and six events.
  expect(await cutTurns(1)).toBeGreaterThan(700);
});
