import { test } from "vitest";
import { crowdTurn } from "./many-readers.ts";

test("of fifty readers of one busy turn ten stall, and each reader gets each event once", async () => {
  await crowdTurn({ readers: 50, stalled: 10, events: 100 });
});
