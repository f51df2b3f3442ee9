import { test } from "vitest";
import { crowdTurn } from "./many-readers.ts";

test("of a thousand readers of one busy turn two hundred stall: memory stays bounded, and each reader gets each event once", async () => {
  await crowdTurn({ readers: 1_000, stalled: 200, events: 1_000 });
}, 900_000);
