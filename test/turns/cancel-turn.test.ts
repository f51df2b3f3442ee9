import { once } from "node:events";
import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { findTurn } from "../../db/turns.ts";
import { cancelTurn } from "../../server/turns/cancel-turn.ts";
import { getTurn } from "../../server/turns/read/get-turn.ts";
import { startTurn } from "../../server/turns/start/start-turn.ts";
import { completed, delta, streamOf, type Call } from "./engine-double.ts";
import { interceptStatements, TURN_BEGIN } from "./intercept-statements.ts";
import { openMovableClock } from "./movable-clock.ts";
import { openTurnWorld, readAll, seqsOf } from "./turn-world.ts";
import type { EngineRowDouble, TurnWorld, WorldContext, WorldOptions } from "./turn-world.ts";

let world: TurnWorld;
let users = 0;
const UNSENT = "the turn was cancelled before its engine had it";
const START_ANSWER_MS = 10_000;
const IDLE_MS = 600_000;
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
  return { ctx, engine, input, call: await world.engine.callOf(input.request.taskId) };
}

test("a cancel ends our reading, and its end says that the engine may go on", async () => {
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

test("a cancel does not change a turn that has ended", async () => {
  world.engine.onCall = streamOf(completed());
  const input = world.input();
  await startTurn(world.ctx, input);
  await readAll(world.ctx, input);
  expect(await cancelTurn(world.ctx, input)).toMatchObject({ status: "completed" });
});

test("a turn in starting can be cancelled", async () => {
  const clock = openMovableClock();
  const { ctx } = world.openProcess({ clock, timing: { startAnswerMs: START_ANSWER_MS } });
  world.engine.onCall = () => {};
  const input = world.input();
  const starting = startTurn(ctx, input);
  await world.engine.callOf(input.request.taskId);
  clock.advance(START_ANSWER_MS);
  expect(await starting).toMatchObject({ status: "starting" });
  expect(await cancelTurn(ctx, input)).toMatchObject({
    status: "cancelled",
    end: { engineMayContinue: true },
  });
});

test("a cancel that finds the turn only at its second search ends it like any other, without a gap", async () => {
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

test("a cancel while start waits for the engine's answer ends both calls", async () => {
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
  const clock = openMovableClock();
  const { ctx, engine, input } = await openTurn({ clock, config: { turnIdleTimeoutMs: IDLE_MS } });
  await cancelTurn(ctx, input);
  expect(world.holds.count(engine.engineId)).toBe(1);
  clock.advance(IDLE_MS);
  await expect.poll(() => world.holds.count(engine.engineId)).toBe(0);
});

test("an operation that interrupts holders also ends a lingering hold", async () => {
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

test("a cancel during the start of a turn on a busy task hides nothing: start is refused, and cancel finds no turn", async () => {
  const { ctx, input: busy } = await openTurn();
  const input = { ...busy, turnId: randomUUID() };
  const starting = startTurn(ctx, input);
  const cancelling = cancelTurn(ctx, input);
  await expect(starting).rejects.toMatchObject({ reason: "TURN_IN_PROGRESS" });
  await expect(cancelling).rejects.toMatchObject({ reason: "TURN_NOT_FOUND" });
});

const refuse = (call: Call) => {
  call.response.writeHead(503, { "content-type": "application/json" }).end("{}");
};

test("a start that is refused during a cancel, and repeated at once, is cancelled all the same", async () => {
  const { ctx } = world.openProcess();
  const erasing = Promise.withResolvers<void>();
  const isCancelling = Promise.withResolvers<void>();
  const raw = interceptStatements(ctx.raw, "delete from turns", async (send) => {
    erasing.resolve();
    await isCancelling.promise;
    return send();
  });
  const slow = { ...ctx, raw };
  const input = world.input();
  world.engine.onCall = refuse;
  const again = startTurn(slow, input).catch(async () => startTurn(ctx, input));
  await erasing.promise;
  world.engine.onCall = (call) => call.open();
  const cancelling = cancelTurn(ctx, input);
  isCancelling.resolve();
  const turn = await cancelling;
  expect(turn).toMatchObject({ status: "cancelled", end: { reason: "CANCELLED" } });
  await again;
  expect(await getTurn(ctx, input)).toEqual(turn);
});

test("a row that a failed start left is cancelled as a turn that its engine never had", async () => {
  const { ctx } = world.openProcess();
  const raw = interceptStatements(ctx.raw, "delete from turns", async () => {
    throw new Error("not now");
  });
  const unable = { ...ctx, raw };
  const input = world.input();
  world.engine.onCall = refuse;
  await expect(startTurn(unable, input)).rejects.toMatchObject({ reason: "ENGINE_UNHEALTHY" });
  expect(await getTurn(ctx, input)).toMatchObject({ status: "starting" });
  const turn = await cancelTurn(ctx, input);
  expect(turn).toMatchObject({
    status: "cancelled",
    lastSeq: 1,
    end: { lastSeq: 1, message: UNSENT, engineMayContinue: false },
  });
  expect(await readAll(ctx, input)).toMatchObject({ events: [], gaps: [], end: turn.end });
  expect(await startTurn(ctx, input)).toMatchObject({ status: "cancelled", created: false });
});

test("if it is unknown whether the row was written, start and cancel both throw, and no engine gets the turn", async () => {
  const { ctx } = world.openProcess();
  const input = world.input();
  const [engine] = world.engines;
  let isFirst = true;
  let cancelling: Promise<unknown> | undefined;
  const raw = interceptStatements(ctx.raw, TURN_BEGIN, async (send) => {
    if (isFirst) {
      isFirst = false;
      const row = await send();
      // The gate closes for a moment, so the row is erased and written again.
      const gate = { whenBusy: "wait", deadlineMs: 1_000, reason: "ENGINE_STOPPED" } as const;
      (await world.holds.closeGate(engine?.engineId ?? "", gate))[Symbol.dispose]();
      return row;
    }
    cancelling ??= cancelTurn(ctx, input).catch((error: unknown) => error);
    await send();
    throw Object.assign(new Error("torn"), { code: "CONNECTION_CLOSED" });
  });
  // The background erasure starts after a second, which never passes.
  const clock = { ...ctx.clock, sleep: async () => new Promise<never>(() => {}) };
  const torn = { ...ctx, raw, clock };
  const before = world.engine.calls.length;
  await expect(startTurn(torn, input)).rejects.toThrow("torn");
  expect(await cancelling).toMatchObject({ message: "torn" });
  expect(world.engine.calls).toHaveLength(before);
  expect(await cancelTurn(ctx, input)).toMatchObject({ status: "cancelled", end: { message: UNSENT } });
});

test("a row belongs to a live turn by owner, fencing token and id, not by its id alone", async () => {
  const { ctx, input } = await openTurn();
  const row = await findTurn(ctx.raw, input);
  if (!row) throw new Error("there is no row");
  expect(ctx.turns.findOwn(row)).toBe(ctx.turns.find(input.productId, input.turnId));
  for (const other of [
    { fencingToken: row.fencingToken + 1 },
    { ownerReplica: randomUUID() },
    { turnId: randomUUID() },
  ])
    expect(ctx.turns.findOwn({ ...row, ...other })).toBeUndefined();
});

/** Brings a start to a point before its engine is held. */
type Arrange = (ctx: WorldContext, engine: EngineRowDouble, reached: () => void) => Promise<WorldContext>;
const duringWrite: Arrange = async (ctx, { productId }, reached) => {
  const raw = interceptStatements(ctx.raw, TURN_BEGIN, async (send) => {
    const [turn] = ctx.turns.list().filter((one) => one.input.productId === productId);
    reached();
    if (turn?.stopSignal.aborted === false) await once(turn.stopSignal, "abort");
    return send();
  });
  return { ...ctx, raw };
};
const duringBoot: Arrange = async (ctx, { engineId }, reached) => {
  await world.database.raw`update engines set status = 'starting' where id = ${engineId}`;
  const waitForReconcile = async () => {
    reached();
    return new Promise<never>(() => {});
  };
  return { ...ctx, reconciler: { ...ctx.reconciler, waitForReconcile } };
};
const atTheGate: Arrange = async (ctx, { engineId }, reached) => {
  await world.holds.closeGate(engineId, { whenBusy: "wait", deadlineMs: 0, reason: "ENGINE_STOPPED" });
  const raw = interceptStatements(ctx.raw, "delete from turns", async (send) => {
    await send();
    reached();
  });
  return { ...ctx, raw };
};

describe("a turn that is cancelled before its engine has it is on record, and never begins under that id", () => {
  test.each([
    ["its row is written", duringWrite],
    ["its engine boots", duringBoot],
    ["an operation has closed the gate of its engine", atTheGate],
  ])("while %s", async (what, arrange) => {
    const process = world.openProcess();
    const engine = await world.addEngine(what);
    const reached = Promise.withResolvers<void>();
    const ctx = await arrange(process.ctx, engine, reached.resolve);
    const input = { ...world.input(), userId: engine.userId };
    const before = world.engine.calls.length;
    const starting = startTurn(ctx, input);
    await reached.promise;
    const turn = await cancelTurn(ctx, input);
    expect(turn).toMatchObject({
      status: "cancelled",
      end: { reason: "CANCELLED", message: UNSENT, engineMayContinue: false },
    });
    expect(await starting).toMatchObject({ status: "cancelled", created: true });
    expect((await readAll(ctx, input)).end).toEqual(turn.end);
    expect(await startTurn(process.ctx, input)).toMatchObject({ status: "cancelled", created: false });
    expect(world.engine.calls).toHaveLength(before);
  });
});
