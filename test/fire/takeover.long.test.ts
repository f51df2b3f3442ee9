import { expect, test } from "vitest";
import { killOwners } from "./kill-owners.ts";

test("a hundred times, the owner of four turns is killed in mid-turn: every turn completes, and each reader gets each event once", async () => {
  const { cutTurns } = await killOwners({ kills: 100, words: 300 });
  expect(cutTurns).toBe(400);
}, 2_400_000);
