import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { abortable } from "../../server/abortable.ts";
import type { UseEngineInput } from "../../server/engines/use-engine.ts";
import { cancelTurn } from "../../server/turns/cancel-turn.ts";
import { startTurn } from "../../server/turns/start-turn.ts";
import { completed, delta, streamOf } from "./engine-double.ts";
import { openTurnWorld, readAll, seqsOf, type TurnWorld, type WorldOptions } from "./turn-world.ts";

let world: TurnWorld;
let users = 0;
const never = new AbortController().signal;
beforeAll(async () => {
  world = await openTurnWorld();
});
afterAll(async () => world[Symbol.asyncDispose]());

async function openTurn(options: WorldOptions = {}) {
  users += 1;
  const engine = await world.addEngine(`user ${users}`);
  const { ctx } = world.openProcess(options);
  world.engine.onCall = (call) => call.open();
  const input = { ...world.input(), userId: engine.userId };
  await startTurn(ctx, input);
  const call = world.engine.calls.find((one) => one.body["task_id"] === input.request.taskId);
  if (!call) throw new Error("the engine was not called");
  return { ctx, engine, input, call };
}

test("cancelling ends our reading, and says that the engine may go on", async () => {
  const { ctx, input, call } = await openTurn();
  await call.write(delta("a"));
  await readAll(ctx, input, { stop: () => true });
  const turn = await cancelTurn(ctx, input);
  expect(turn).toMatchObject({
    status: "cancelled",
    lastSeq: 2,
    end: { status: "cancelled", reason: "CANCELLED", engineMayContinue: true, lastSeq: 2 },
  });
  await expect.poll(() => call.isClosed).toBe(true);
  const read = await readAll(ctx, input);
  expect(seqsOf(read)).toEqual([1]);
  expect(read.end).toEqual(turn.end);
  expect(await cancelTurn(ctx, input)).toEqual(turn);
});

test("a turn that ended is not changed by cancelling it", async () => {
  world.engine.onCall = streamOf(completed());
  const input = world.input();
  await startTurn(world.ctx, input);
  await readAll(world.ctx, input);
  expect(await cancelTurn(world.ctx, input)).toMatchObject({ status: "completed" });
});

test("a turn in starting can be cancelled", async () => {
  const { ctx } = world.openProcess({ timing: { startAnswerMs: 50 } });
  world.engine.onCall = () => {};
  const input = world.input();
  expect(await startTurn(ctx, input)).toMatchObject({ status: "starting" });
  expect(await cancelTurn(ctx, input)).toMatchObject({
    status: "cancelled",
    end: { engineMayContinue: true },
  });
});

test("a cancel that comes a moment before its turn ends it as any other, and nothing of it is missing", async () => {
  const { ctx, input, call } = await openTurn();
  await call.write(delta("a"));
  await readAll(ctx, input, { stop: () => true });
  const find = vi.spyOn(ctx.turns, "find").mockReturnValueOnce(undefined);
  const turn = await cancelTurn(ctx, input);
  expect(find.mock.results[0]).toEqual({ type: "return", value: undefined });
  expect(turn).toMatchObject({ status: "cancelled", lastSeq: 2, end: { lastSeq: 2 } });
  const read = await readAll(ctx, input);
  expect(seqsOf(read)).toEqual([1]);
  expect(read.gaps).toEqual([]);
});

test("cancelling while start still waits for the engine answers both", async () => {
  world.engine.onCall = () => {};
  const before = world.engine.calls.length;
  const second = world.input();
  const starting = startTurn(world.ctx, second);
  await expect.poll(() => world.engine.calls.length).toBe(before + 1);
  expect(await cancelTurn(world.ctx, second)).toMatchObject({ status: "cancelled" });
  expect(await starting).toMatchObject({ status: "cancelled", created: true });
});

test("the engine stays held until it accepts the task again", async () => {
  const { ctx, engine, input } = await openTurn();
  await cancelTurn(ctx, input);
  expect(world.holds.count(engine.engineId)).toBe(1);
  world.engine.onCall = streamOf(completed());
  const other = { ...world.input(), userId: engine.userId };
  await startTurn(ctx, other);
  await readAll(ctx, other);
  expect(world.holds.count(engine.engineId)).toBe(1);
  const again = { ...other, turnId: crypto.randomUUID(), request: input.request };
  await startTurn(ctx, again);
  await readAll(ctx, again);
  expect(world.holds.count(engine.engineId)).toBe(0);
});

test("the engine stays held until its generation moves", async () => {
  const { ctx, engine, input } = await openTurn();
  await cancelTurn(ctx, input);
  expect(world.holds.count(engine.engineId)).toBe(1);
  engine.generation = 2;
  await expect.poll(() => world.holds.count(engine.engineId)).toBe(0);
});

test("the engine stays held no longer than the idle timeout", async () => {
  const { ctx, engine, input } = await openTurn({ config: { turnIdleTimeoutMs: 200 } });
  await cancelTurn(ctx, input);
  await expect.poll(() => world.holds.count(engine.engineId)).toBe(0);
});

test("who insists on the engine gets it from a lingering hold", async () => {
  const { ctx, engine, input } = await openTurn();
  await cancelTurn(ctx, input);
  const gate = await world.holds.closeGate(engine.engineId, {
    whenBusy: "interrupt",
    deadlineMs: 0,
    reason: "ENGINE_STOPPED",
  });
  gate[Symbol.dispose]();
  expect(world.holds.count(engine.engineId)).toBe(0);
});

test("a cancel hides no refusal: of a task that is busy both are told so, and there is no turn", async () => {
  const { ctx, input: busy } = await openTurn();
  const input = { ...busy, turnId: randomUUID() };
  const { useEngine } = ctx.turns.options;
  ctx.turns.options.useEngine = async (wanted) => abortable(useEngine(wanted), wanted.signal ?? never);
  const starting = startTurn(ctx, input);
  const cancelling = cancelTurn(ctx, input);
  await expect(starting).rejects.toMatchObject({ reason: "TURN_IN_PROGRESS" });
  await expect(cancelling).rejects.toMatchObject({ reason: "TURN_NOT_FOUND" });
});

describe("a turn whose engine never had it is on record as cancelled, and never begins under that id", () => {
  test.each([
    ["its row is being written", async (wanted: UseEngineInput) => void wanted.findFirst?.()],
    ["its engine boots", async (wanted: UseEngineInput) => void (await wanted.findFirst?.())],
    [
      "a verb has closed its engine's gate",
      async (wanted: UseEngineInput) => {
        await wanted.findFirst?.();
        await wanted.onBlocked?.();
      },
    ],
  ])("while %s", async (_what, getThere) => {
    const { ctx } = world.openProcess();
    const { useEngine } = ctx.turns.options;
    const isThere = Promise.withResolvers<void>();
    ctx.turns.options.useEngine = async (wanted) => {
      await getThere(wanted);
      isThere.resolve();
      return abortable(new Promise<never>(() => {}), wanted.signal ?? never);
    };
    const input = world.input();
    const before = world.engine.calls.length;
    const starting = startTurn(ctx, input);
    await isThere.promise;
    const turn = await cancelTurn(ctx, input);
    expect(turn).toMatchObject({
      status: "cancelled",
      end: { reason: "CANCELLED", engineMayContinue: false },
    });
    expect(await starting).toMatchObject({ status: "cancelled", created: true });
    expect((await readAll(ctx, input)).end).toEqual(turn.end);
    ctx.turns.options.useEngine = useEngine;
    expect(await startTurn(ctx, input)).toMatchObject({ status: "cancelled", created: false });
    expect(world.engine.calls).toHaveLength(before);
  });
});
