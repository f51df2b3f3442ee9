import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { insertEngine, updateEngineIf, type NewEngine } from "../../../db/engines.ts";
import { ENGINE_STATUSES } from "../../../server/engines/model/engine-status.ts";
import { moveEngine } from "../../../server/engines/model/move-engine.ts";
import { isAllowed, MOVES, type Move } from "../../../server/engines/model/moves.ts";
import { toEngineSpec } from "../../../server/engines/model/engine-spec.ts";
import { openHouse, openSite, type House, type Site } from "../open-house.ts";

let site: Site;
let house: House;

beforeAll(async () => {
  site = await openSite();
  house = await openHouse(site);
});
afterAll(async () => {
  await house[Symbol.asyncDispose]();
  await site[Symbol.asyncDispose]();
});

const cells = ENGINE_STATUSES.flatMap((from) =>
  Object.keys(MOVES).map((move) => ({ from, move: move as Move })),
);

/** Inserts an engine in any status. */
async function insertEngineAs(
  changes: Pick<NewEngine, "userId" | "status" | "desired"> & Partial<NewEngine>,
): Promise<string> {
  const id = randomUUID();
  await insertEngine(house.ctx.db, {
    id,
    productId: site.productId,
    desiredBy: "caller",
    spec: toEngineSpec(house.ctx.config, { image: "reference:1", imageFrom: "default", limitOverrides: {} }),
    specHash: "hash",
    volumeName: `engine-data-${id}`,
    runtimeHost: "memory:test",
    incarnation: 1,
    generation: 1,
    keyHash: "hash",
    keySealed: "sealed",
    keyPrefix: "ehe_",
    ...changes,
  });
  return id;
}

test.each(cells)("$move from $from is made if and only if the table allows it", async ({ from, move }) => {
  const id = await insertEngineAs({ userId: `${from}-${move}`, status: from, desired: "running" });
  const moved = await moveEngine(house.ctx.db, { row: { id, desired: "running" }, move });
  const expected = isAllowed(move, from) ? MOVES[move].to : undefined;
  expect(moved?.status).toBe(expected);
  const after = await updateEngineIf(house.ctx.db, { id }, {});
  expect(after?.status).toBe(expected ?? from);
});

test("a move fails when the desired state has changed, or when a newer lease exists", async () => {
  expect(await updateEngineIf(house.ctx.db, { id: randomUUID() }, {})).toBeUndefined();
  const id = await insertEngineAs({
    userId: "racer",
    status: "starting",
    desired: "stopped",
    fencingToken: 7,
  });
  const { db } = house.ctx;
  expect(await moveEngine(db, { row: { id, desired: "running" }, move: "ready" })).toBeUndefined();
  expect(
    await moveEngine(db, { row: { id, desired: "stopped" }, move: "stop", fencingToken: 6 }),
  ).toBeUndefined();
  expect(
    await moveEngine(db, { row: { id, desired: "stopped" }, move: "stop", fencingToken: 7 }),
  ).toMatchObject({
    status: "stopping",
  });
});
