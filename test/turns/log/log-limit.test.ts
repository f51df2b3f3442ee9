import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { startTurn } from "../../../server/turns/start/start-turn.ts";
import { shiftDatabaseClock } from "../../support/shift-clock.ts";
import { completed, delta, streamOf } from "../engine-double.ts";
import { openTurnWorld, readAll, startAndRead, type TurnWorld } from "../turn-world.ts";

const LIMIT = 100_000;
const FLOOD = delta("x".repeat(10_000)).repeat(5);

let world: TurnWorld;
beforeAll(async () => {
  world = await openTurnWorld({ config: { turnLogBytesPerHour: LIMIT } });
});
afterAll(async () => world[Symbol.asyncDispose]());
let hour = 0;
beforeEach(async () => {
  // Each test has an hour of its own.
  hour += 2;
  await shiftDatabaseClock(world.databaseUrl, `${hour} hours`);
});

/** A turn of the product that writes until it is ended. */
async function fillLog() {
  const input = world.input();
  world.engine.onCall = (call) => {
    if (call.body["task_id"] !== input.request.taskId) return;
    call.open();
    const timer = setInterval(() => call.response.write(FLOOD), 20);
    call.response.on("close", () => clearInterval(timer));
  };
  const read = await startAndRead(world, input);
  return { input, read, call: await world.engine.callOf(input.request.taskId) };
}

const toRefusal = async (start: Promise<unknown>) => start.catch((error: unknown) => error);

test("beyond the product's bytes of an hour a turn ends with LOG_LIMIT, and its engine is cut off", async () => {
  const { read, call } = await fillLog();
  expect(read.end).toMatchObject({ status: "failed", reason: "LOG_LIMIT", engineMayContinue: true });
  expect(read.end?.message).toContain(`${LIMIT} bytes`);
  expect(read.end?.lastSeq).toBe(read.events.length + 1);
  await expect.poll(() => call.isClosed).toBe(true);
});

test("then a new turn is refused on every replica until the next hour, and its engine never has it", async () => {
  const { input } = await fillLog();
  const other = world.openProcess();
  for (const ctx of [world.ctx, other.ctx]) {
    const late = world.input();
    const refusal = await toRefusal(startTurn(ctx, late));
    expect(refusal).toMatchObject({ reason: "RATE_LIMITED" });
    const { retryAfterMs } = refusal as { retryAfterMs: number };
    expect(retryAfterMs).toBeGreaterThan(0);
    expect(retryAfterMs).toBeLessThanOrEqual(3_600_000);
    expect(world.engine.calls.filter((call) => call.body["task_id"] === late.request.taskId)).toEqual([]);
  }
  // A start of a turn that exists is no new turn.
  expect(await startTurn(world.ctx, input)).toMatchObject({ created: false, status: "failed" });
  await shiftDatabaseClock(world.databaseUrl, `${hour + 1} hours`);
  world.engine.onCall = streamOf(delta("a"), completed());
  expect((await startAndRead(world)).end).toMatchObject({ status: "completed" });
});

test("another product's turns go on", async () => {
  const productId = await world.addProduct();
  await world.addEngine("ann", productId);
  await fillLog();
  world.engine.onCall = streamOf(delta("a"), completed());
  const input = { ...world.input(), productId };
  await startTurn(world.ctx, input);
  expect((await readAll(world.ctx, input)).end).toMatchObject({ status: "completed" });
});

test("the bytes of all replicas count together, exactly as many as the log has", async () => {
  const other = world.openProcess();
  world.engine.onCall = streamOf(delta("é".repeat(1_000)), delta("b"), completed());
  const inputs = [world.input(), world.input(), world.input()];
  await Promise.all(
    inputs.map(async (input, index) => {
      const { ctx } = index === 0 ? other : world;
      await startTurn(ctx, input);
      await readAll(ctx, input);
    }),
  );
  const { raw } = world.database;
  const ids = inputs.map(({ turnId }) => turnId);
  const [logged] = await raw`
    select sum(octet_length(sealed))::int as bytes from turn_events where turn_id = any(${ids}::uuid[])`;
  const [counted] = await raw`
    select bytes::int from stored_bytes where kind = 'turn_log' and hour = date_trunc('hour', orch_now(), 'UTC')`;
  expect(counted).toEqual(logged);
});
