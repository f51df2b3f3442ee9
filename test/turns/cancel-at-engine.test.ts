import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { cancelTurn } from "../../server/turns/cancel-turn.ts";
import { drainTurns } from "../../server/turns/drain-turns.ts";
import { startTurn } from "../../server/turns/start/start-turn.ts";
import { answerJson, completed, delta, sse, started, type Call } from "./engine-double.ts";
import { openTurnWorld, readAll, type TurnWorld, type WorldOptions } from "./turn-world.ts";

let world: TurnWorld;
let users = 0;
beforeAll(async () => {
  world = await openTurnWorld();
});
afterAll(async () => world[Symbol.asyncDispose]());

const errored = () => sse("thread_lifecycle", { phase: "errored", error: "CANCELLED", message: "m" });

/** A turn whose engine has sent one event and goes on. The engine answers the cancel with `onCancel`. */
async function openTurn(onCancel: (cancel: Call, turn: Call) => void, options: WorldOptions = {}) {
  users += 1;
  const engine = await world.addEngine(`user ${users}`);
  const { ctx } = world.openProcess(options);
  const input = { ...world.input(), userId: engine.userId };
  const { taskId } = input.request;
  world.engine.onCall = (call) => {
    call.open();
    void call.write(started());
  };
  world.engine.onCancel = (cancel) => {
    const turn = world.engine.calls.find(({ body }) => body["task_id"] === taskId);
    if (turn) onCancel(cancel, turn);
  };
  await startTurn(ctx, input);
  await readAll(ctx, input, { stop: () => true });
  const cancelsOf = () => world.engine.optionalCalls.filter(({ body }) => body["task_id"] === taskId);
  return { ctx, engine, input, cancelsOf, call: await world.engine.callOf(taskId) };
}

const cancelWell = (cancel: Call, turn: Call) => {
  void (async () => {
    await turn.write(delta("late") + errored());
    turn.end();
    answerJson(200, { cancelled: true })(cancel);
  })();
};

test("the engine ends a cancelled turn: its last events are delivered, and the engine is free", async () => {
  const { ctx, engine, input, cancelsOf } = await openTurn(cancelWell);
  const turn = await cancelTurn(ctx, input);
  expect(turn).toMatchObject({
    status: "cancelled",
    end: { reason: "CANCELLED", engineMayContinue: false, engineError: null, lastSeq: 4 },
  });
  expect(world.holds.count(engine.engineId)).toBe(0);
  const read = await readAll(ctx, input);
  expect(read.events.map(({ type }) => type)).toEqual(["thread_lifecycle", "text_delta", "thread_lifecycle"]);
  expect(read.end).toEqual(turn.end);
  const [cancel, ...others] = cancelsOf();
  expect(cancel?.body).toEqual({ task_id: input.request.taskId });
  expect(cancel?.headers["x-engine-key"]).toBe(engine.apiKey);
  expect(others).toEqual([]);
});

test("several cancels at once ask the engine once and get the same turn, as does a cancel after the end", async () => {
  const { ctx, input, cancelsOf } = await openTurn(cancelWell);
  const turns = await Promise.all([1, 2, 3].map(async () => cancelTurn(ctx, input)));
  expect(turns[0]).toMatchObject({ status: "cancelled", end: { engineMayContinue: false } });
  for (const turn of [...turns, await cancelTurn(ctx, input)]) expect(turn).toEqual(turns[0]);
  expect(cancelsOf()).toHaveLength(1);
});

test("an engine that has confirmed the cancel need not end its stream", async () => {
  const { ctx, input, call } = await openTurn((cancel) => answerJson(200, { cancelled: true })(cancel));
  expect(await cancelTurn(ctx, input)).toMatchObject({
    status: "cancelled",
    end: { engineMayContinue: false, lastSeq: 2 },
  });
  await expect.poll(() => call.isClosed).toBe(true);
});

test("an engine that has no such turn, and ends its stream, is done", async () => {
  const { ctx, engine, input, cancelsOf } = await openTurn((cancel, turn) => {
    answerJson(200, { cancelled: false })(cancel);
    turn.end();
  });
  expect(await cancelTurn(ctx, input)).toMatchObject({
    status: "cancelled",
    end: { reason: "CANCELLED", engineMayContinue: false },
  });
  expect(cancelsOf()).toHaveLength(1);
  expect(world.holds.count(engine.engineId)).toBe(0);
});

test("a turn that completes before its engine gets the cancel is completed", async () => {
  const { ctx, engine, input } = await openTurn((cancel, turn) => {
    answerJson(200, { cancelled: false })(cancel);
    void turn.write(completed()).then(() => turn.end());
  });
  expect(await cancelTurn(ctx, input)).toMatchObject({ status: "completed" });
  expect(world.holds.count(engine.engineId)).toBe(0);
});

test("a limit that is exceeded during a cancel does not change its end", async () => {
  const { ctx, input } = await openTurn(
    (cancel, turn) => {
      void turn.write(delta("x".repeat(2_000))).then(() => answerJson(200, { cancelled: true })(cancel));
    },
    { config: { eventMaxBytes: 1_000 } },
  );
  expect(await cancelTurn(ctx, input)).toMatchObject({
    status: "cancelled",
    end: { engineMayContinue: false },
  });
});

describe("an engine that did not confirm the cancel may continue, and stays held", () => {
  test.each<[string, (call: Call) => void, RegExp]>([
    ["it lacks the call", answerJson(404, { error: "NOT_FOUND", message: "no" }), /does not support/],
    ["it has no POST there", answerJson(405), /does not support/],
    ["it has no turn of the task", answerJson(200, { cancelled: false }), /had no turn/],
    ["it fails", answerJson(500, { error: "BROKEN", message: "no" }), /did not confirm/],
    ["it drains", answerJson(503, { error: "DRAINING", message: "no" }), /did not confirm/],
    ["it does not say", answerJson(200, { result: 1 }), /did not confirm/],
    ["it answers nonsense", ({ response }) => response.end("<html>"), /did not confirm/],
    ["it breaks the connection", (call) => call.destroy(), /did not confirm/],
    ["it hangs", () => {}, /did not confirm/],
  ])("%s", async (_why, onCancel, message) => {
    const { ctx, engine, input, cancelsOf } = await openTurn(onCancel, { timing: { cancelMs: 300 } });
    expect(await cancelTurn(ctx, input)).toMatchObject({
      status: "cancelled",
      end: { reason: "CANCELLED", engineMayContinue: true, message: expect.stringMatching(message) },
    });
    expect(cancelsOf()).toHaveLength(1);
    expect(world.holds.count(engine.engineId)).toBe(1);
  });
});

describe("a cancel of a turn that has ended while its engine may continue", () => {
  const confirm = answerJson(200, { cancelled: true });

  test("ends the turn at the engine, frees the engine, and leaves the turn's end as it is", async () => {
    const { ctx, engine, input, cancelsOf } = await openTurn(answerJson(404));
    const ended = await cancelTurn(ctx, input);
    expect(world.holds.count(engine.engineId)).toBe(1);
    world.engine.onCancel = confirm;
    expect(await cancelTurn(ctx, input)).toEqual(ended);
    expect(cancelsOf()).toHaveLength(2);
    expect(world.holds.count(engine.engineId)).toBe(0);
  });

  test("asks the engine at every replica", async () => {
    const { ctx, input, cancelsOf } = await openTurn(confirm);
    await drainTurns(ctx, 0);
    await cancelTurn(world.openProcess().ctx, input);
    expect(cancelsOf()).toHaveLength(1);
  });

  test("passes the gate of a stop that waits for the turn", async () => {
    const { ctx, engine, input, cancelsOf } = await openTurn(answerJson(404));
    await cancelTurn(ctx, input);
    world.engine.onCancel = confirm;
    const options = { whenBusy: "wait", deadlineMs: 60_000, reason: "ENGINE_STOPPED" } as const;
    const closing = world.holds.closeGate(engine.engineId, options);
    await cancelTurn(ctx, input);
    (await closing)[Symbol.dispose]();
    expect(cancelsOf()).toHaveLength(2);
  });

  test("never ends a later turn of the task", async () => {
    const { ctx, input, cancelsOf } = await openTurn(answerJson(404));
    await cancelTurn(ctx, input);
    await startTurn(ctx, { ...input, turnId: crypto.randomUUID() });
    world.engine.onCancel = confirm;
    expect(await cancelTurn(world.openProcess().ctx, input)).toMatchObject({ status: "cancelled" });
    expect(cancelsOf()).toHaveLength(1);
  });

  test("asks no engine that has lost its memory since", async () => {
    const { ctx, engine, input, cancelsOf } = await openTurn(answerJson(404));
    await cancelTurn(ctx, input);
    await world.database.raw`update engines set generation = 2 where id = ${engine.engineId}`;
    expect(await cancelTurn(ctx, input)).toMatchObject({ status: "cancelled" });
    expect(cancelsOf()).toHaveLength(1);
  });
});

test("a cancel before the engine's status line asks the engine, too", async () => {
  const engine = await world.addEngine("slow to answer");
  const { ctx } = world.openProcess();
  const input = { ...world.input(), userId: engine.userId };
  world.engine.onCall = () => {};
  world.engine.onCancel = answerJson(200, { cancelled: true });
  const starting = startTurn(ctx, input);
  await world.engine.callOf(input.request.taskId);
  expect(await cancelTurn(ctx, input)).toMatchObject({
    status: "cancelled",
    end: { engineMayContinue: false },
  });
  expect(await starting).toMatchObject({ status: "cancelled" });
});

test("an operation that interrupts the holders does not wait for an engine that hangs in a cancel", async () => {
  const asked = Promise.withResolvers<void>();
  const { ctx, engine, input } = await openTurn(() => asked.resolve(), { timing: { cancelMs: 600_000 } });
  const cancelling = cancelTurn(ctx, input);
  await asked.promise;
  const options = { whenBusy: "interrupt", deadlineMs: 0, reason: "ENGINE_STOPPED" } as const;
  (await world.holds.closeGate(engine.engineId, options))[Symbol.dispose]();
  expect(await cancelling).toMatchObject({ status: "cancelled" });
  expect(world.holds.count(engine.engineId)).toBe(0);
});

test("a turn that exceeds a limit is ended at its engine", async () => {
  const { ctx, engine, input, call, cancelsOf } = await openTurn(answerJson(200, { cancelled: true }), {
    config: { eventMaxBytes: 1_000 },
  });
  await call.write(delta("x".repeat(2_000)));
  expect((await readAll(ctx, input)).end).toMatchObject({
    status: "failed",
    reason: "EVENT_TOO_LARGE",
    engineMayContinue: false,
  });
  expect(cancelsOf()).toHaveLength(1);
  expect(world.holds.count(engine.engineId)).toBe(0);
});

test("a drain leaves the engine at work", async () => {
  const { ctx, input, cancelsOf } = await openTurn(answerJson(200, { cancelled: true }));
  await drainTurns(ctx, 0);
  expect((await readAll(ctx, input)).end).toMatchObject({ reason: "DRAINING", engineMayContinue: true });
  expect(cancelsOf()).toEqual([]);
});

test("a refused start says which turn its engine still works on, and that waiting helps", async () => {
  const { ctx, input } = await openTurn(answerJson(404));
  await cancelTurn(ctx, input);
  world.engine.onCall = answerJson(409, { error: "TASK_BUSY", message: "busy" });
  const again = { ...input, turnId: crypto.randomUUID() };
  await expect(startTurn(ctx, again)).rejects.toMatchObject({
    reason: "TURN_IN_PROGRESS",
    retryAfterMs: 1_000,
    message: expect.stringMatching(
      new RegExp(`turn ${input.turnId} of this task, which ended here \\d+ s ago \\(CANCELLED\\).*restart`),
    ),
  });
  // At another replica, which has no hold of that turn, the row names it.
  await expect(startTurn(world.openProcess().ctx, again)).rejects.toMatchObject({
    reason: "TURN_IN_PROGRESS",
    message: expect.stringContaining(`turn ${input.turnId} of this task`),
  });
  const unknown = { ...again, request: { ...again.request, taskId: "started by others" } };
  await expect(startTurn(ctx, unknown)).rejects.toMatchObject({
    reason: "TURN_IN_PROGRESS",
    retryAfterMs: 1_000,
    message: expect.stringContaining("a turn of this task that this service does not read"),
  });
});

test("a refused start says that the engine waits for a person, and advises a longer wait", async () => {
  const { ctx, input, call } = await openTurn(answerJson(404));
  await call.write(sse("hitl_request", { request_id: "q" }));
  await readAll(ctx, input, { stop: (read) => read.events.length === 2 });
  await drainTurns(ctx, 0);
  world.engine.onCall = answerJson(409, { error: "TASK_BUSY", message: "busy" });
  const again = { ...input, turnId: crypto.randomUUID() };
  await expect(startTurn(world.openProcess().ctx, again)).rejects.toMatchObject({
    reason: "TURN_IN_PROGRESS",
    retryAfterMs: 15_000,
    message: expect.stringMatching(
      new RegExp(
        `waits for a person's answer to turn ${input.turnId} .*userId and taskId, or cancel that turn`,
      ),
    ),
  });
});

test("a start on a task with a live turn names that turn, and says that waiting helps", async () => {
  const { ctx, input } = await openTurn(answerJson(404));
  await expect(startTurn(ctx, { ...input, turnId: crypto.randomUUID() })).rejects.toMatchObject({
    reason: "TURN_IN_PROGRESS",
    retryAfterMs: 1_000,
    message: expect.stringContaining(`turn ${input.turnId} of task "${input.request.taskId}": streaming`),
  });
});
