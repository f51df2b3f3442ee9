import { expect, test } from "vitest";
import { recordActivity } from "../../db/engines.ts";
import { getEngine } from "../../server/engines/operations/get-engine.ts";
import { provisionEngine } from "../../server/engines/operations/provision-engine.ts";
import { acquireEngine } from "../../server/engines/access/acquire-engine.ts";
import { openHouse, openSite, toCall } from "./open-house.ts";

test("the last use of an engine is written to its row, and never moves back", async () => {
  await using site = await openSite();
  await using house = await openHouse(site);
  const { engine } = await provisionEngine(house.ctx, toCall(house, "ada"));
  expect(engine.lastActivityAt).toBeNull();
  (await acquireEngine(house.ctx, { ...toCall(house, "ada"), timeoutMs: 60_000 })).release();
  await recordActivity(house.ctx.db, house.ctx.holds.takeActivity());
  const { lastActivityAt } = await getEngine(house.ctx, toCall(house, "ada"));
  expect(lastActivityAt).not.toBeNull();
  await recordActivity(house.ctx.db, new Map([[engine.engineId, "2001-01-01T00:00:00.000Z"]]));
  expect((await getEngine(house.ctx, toCall(house, "ada"))).lastActivityAt).toBe(lastActivityAt);
  expect(house.ctx.holds.takeActivity().size).toBe(0);
});
