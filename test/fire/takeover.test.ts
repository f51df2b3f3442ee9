import { expect, test } from "vitest";
import { killOwners } from "./kill-owners.ts";

test("three times, the owner of four turns is killed in mid-turn: every turn completes, and each reader gets each event once", async () => {
  const { cutTurns } = await killOwners({ kills: 3, words: 150 });
  expect(cutTurns).toBe(12);
}, 300_000);
