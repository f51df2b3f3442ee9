import { expect, test } from "vitest";
import { listTurns } from "../../../server/turns/read/list-turns.ts";
import { completed, streamOf } from "../engine-double.ts";
import { openTurnWorld, startAndRead } from "../turn-world.ts";

test("a user's turns come newest first, and new turns do not move later pages", async () => {
  await using world = await openTurnWorld();
  world.engine.onCall = streamOf(completed());
  const productId = await world.addProduct();
  await world.addEngine("ann", productId);
  await world.addEngine("bob");
  await startAndRead(world, { ...world.input(), productId });
  await startAndRead(world, { ...world.input(), userId: "bob" });
  const ids: string[] = [];
  for (let index = 0; index < 5; index += 1) {
    const input = world.input();
    await startAndRead(world, input);
    ids.unshift(input.turnId);
  }
  const key = { productId: world.productId, userId: "ann", limit: 100 };
  const whole = await listTurns(world.ctx, key);
  expect(whole.items.map((turn) => turn.turnId)).toEqual(ids);
  expect(whole.nextCursor).toBeNull();
  expect(whole.items[0]).toMatchObject({ status: "completed", end: { status: "completed" } });

  const first = await listTurns(world.ctx, { ...key, limit: 2 });
  await startAndRead(world);
  const second = await listTurns(world.ctx, { ...key, limit: 2, cursor: first.nextCursor ?? undefined });
  const third = await listTurns(world.ctx, { ...key, limit: 2, cursor: second.nextCursor ?? undefined });
  const paged = [...first.items, ...second.items, ...third.items].map((turn) => turn.turnId);
  expect(paged).toEqual(ids);
  expect(third.nextCursor).toBeNull();
  expect((await listTurns(world.ctx, { ...key, userId: "unknown" })).items).toEqual([]);
});

test.each([
  "",
  "x",
  Buffer.from("2026-01-01/..").toString("base64url"),
  Buffer.from("'; drop").toString("base64url"),
])("the cursor %j is invalid input", async (cursor) => {
  await using world = await openTurnWorld();
  const key = { productId: world.productId, userId: "ann", limit: 100 };
  await expect(listTurns(world.ctx, { ...key, cursor })).rejects.toMatchObject({
    reason: "INVALID_INPUT",
    issues: [{ path: "cursor" }],
  });
});
