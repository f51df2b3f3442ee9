import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { EngineReads } from "../../server/engines/access/engine-reads.ts";
import { cancelTurn } from "../../server/turns/cancel-turn.ts";
import { drainTurns } from "../../server/turns/drain-turns.ts";
import { getTurn } from "../../server/turns/read/get-turn.ts";
import { respondToTurn } from "../../server/turns/respond-to-turn.ts";
import { startTurn } from "../../server/turns/start/start-turn.ts";
import { answerJson, completed, sse, started, type Call } from "./engine-double.ts";
import { openMovableClock } from "./movable-clock.ts";
import { openTurnWorld, readAll, type TurnWorld, type WorldOptions } from "./turn-world.ts";

let world: TurnWorld;
let users = 0;
beforeAll(async () => {
  world = await openTurnWorld();
});
afterAll(async () => world[Symbol.asyncDispose]());

const IDLE_MS = 600_000;
const HITL_MS = 259_200_000;
const question = (requestId?: string) => sse("hitl_request", { request_id: requestId, question: "May I?" });
const resolved = (requestId?: string) => sse("hitl_resolved", { request_id: requestId });

/** A turn whose engine waits for a person. */
async function openTurn(options: WorldOptions = {}) {
  users += 1;
  const engine = await world.addEngine(`user ${users}`);
  const { ctx } = world.openProcess(options);
  const input = { ...world.input(), userId: engine.userId };
  world.engine.onCall = (call) => {
    call.open();
    void call.write(started() + question("q"));
  };
  await startTurn(ctx, input);
  await readAll(ctx, input, { stop: (read) => read.events.some(({ type }) => type === "hitl_request") });
  const { productId, turnId, userId } = input;
  const respond = async (given: object = {}, context = ctx) =>
    respondToTurn(context, { productId, address: { turnId }, answer: "yes", ...given });
  return { ctx, engine, input, respond, userId, call: await world.engine.callOf(input.request.taskId) };
}

test("the engine gets a person's answer, and a reader that comes back reads how the turn went on", async () => {
  // The reader of `openTurn` has left by now.
  const { ctx, engine, input, respond, call } = await openTurn();
  expect(await getTurn(ctx, input)).toMatchObject({ waitsForPerson: true });
  expect(await getTurn(world.openProcess().ctx, input)).toMatchObject({ waitsForPerson: false });
  let holds = 0;
  world.engine.onRespond = (responding) => {
    holds = world.holds.count(engine.engineId);
    void call.write(resolved("q") + completed()).then(() => call.end());
    answerJson(200, { status: "resolved", request_id: "q" })(responding);
  };
  const given = { feedback: "be brief", contentBlocks: [{ type: "text", text: "hi" }] };
  expect(await respond(given)).toEqual({ status: "resolved" });
  expect(world.engine.optionalCalls.at(-1)).toMatchObject({
    body: {
      task_id: input.request.taskId,
      answer: "yes",
      feedback: "be brief",
      content_blocks: given.contentBlocks,
    },
    headers: { "x-engine-key": engine.apiKey },
  });
  const read = await readAll(ctx, input);
  expect(read.events.map(({ type }) => type)).toEqual([
    "thread_lifecycle",
    "hitl_request",
    "hitl_resolved",
    "thread_lifecycle",
  ]);
  expect(read.end).toMatchObject({ status: "completed" });
  expect(await getTurn(ctx, input)).toMatchObject({ waitsForPerson: false });
  expect(holds).toBe(2);
  expect(world.holds.count(engine.engineId)).toBe(0);
});

test("a late answer that names its question never reaches the next question", async () => {
  const { ctx, input, respond, userId, call } = await openTurn();
  world.engine.onRespond = (responding) => {
    answerJson(200, { status: "resolved" })(responding);
  };
  expect(await respond({ requestId: "q" })).toEqual({ status: "resolved" });
  await call.write(resolved("q") + question("next"));
  await readAll(ctx, input, { stop: (read) => read.events.length === 4 });
  const sent = world.engine.optionalCalls.length;
  await expect(respond({ requestId: "q" })).rejects.toMatchObject({
    reason: "ENGINE_ERROR",
    message: expect.stringContaining('the question "q" is not open'),
    engineError: { code: "NO_PENDING_REQUEST" },
  });
  expect(world.engine.optionalCalls).toHaveLength(sent);
  // By user and task the live turn is the same. At another replica, only the engine knows its questions.
  const { taskId } = input.request;
  await expect(respond({ address: { userId, taskId }, requestId: "q" })).rejects.toMatchObject({
    engineError: { code: "NO_PENDING_REQUEST" },
  });
  const answer = { productId: input.productId, address: { userId, taskId }, answer: "no", requestId: "q" };
  await respondToTurn(world.openProcess().ctx, answer);
  expect(world.engine.optionalCalls.at(-1)?.body).toEqual({ task_id: taskId, request_id: "q", answer: "no" });
  expect(await respond({ requestId: "next" })).toEqual({ status: "resolved" });
  expect(ctx.turns.find(input.productId, input.turnId)?.questions.isEmpty).toBe(true);
});

test("an engine that answers without a body has accepted the answer", async () => {
  const { respond } = await openTurn();
  world.engine.onRespond = ({ response }) => response.writeHead(204).end();
  expect(await respond()).toEqual({ status: "accepted" });
});

test("user and task reach the engine, too, also when the turn has ended here", async () => {
  const { ctx, input, userId } = await openTurn();
  await drainTurns(ctx, 0);
  expect(await getTurn(ctx, input)).toMatchObject({
    status: "interrupted",
    end: { reason: "AWAITING_HUMAN", engineMayContinue: true, message: expect.stringContaining("taskId") },
  });
  world.engine.onRespond = answerJson(200, { status: "resolved" });
  const { taskId } = input.request;
  const answer = { productId: input.productId, address: { userId, taskId }, answer: "yes" };
  expect(await respondToTurn(world.openProcess().ctx, answer)).toEqual({ status: "resolved" });
  expect(world.engine.optionalCalls.at(-1)?.body).toEqual({ task_id: taskId, answer: "yes" });
});

test("a drain ends only those turns as AWAITING_HUMAN that wait for a person", async () => {
  const { ctx, input, call } = await openTurn();
  await call.write(resolved("q"));
  await readAll(ctx, input, { stop: (read) => read.events.length === 3 });
  await drainTurns(ctx, 0);
  expect(await getTurn(ctx, input)).toMatchObject({ end: { reason: "DRAINING" } });
});

describe("turns that wait for no answer", () => {
  test("an unknown turn, and one of another product, is TURN_NOT_FOUND", async () => {
    const { ctx, input } = await openTurn();
    const absent = { reason: "TURN_NOT_FOUND", message: "there is no turn of this id" };
    const answer = { answer: "yes", productId: input.productId };
    await expect(respondToTurn(ctx, { ...answer, address: { turnId: randomUUID() } })).rejects.toMatchObject(
      absent,
    );
    const foreign = { ...answer, productId: await world.addProduct(), address: { turnId: input.turnId } };
    await expect(respondToTurn(ctx, foreign)).rejects.toMatchObject(absent);
  });

  test("an ended turn is TURN_NOT_FOUND, and the message says how it ended and what to do", async () => {
    const { ctx, input, respond } = await openTurn();
    world.engine.onCancel = answerJson(404);
    const before = world.engine.optionalCalls.length;
    await cancelTurn(ctx, input);
    await expect(respond()).rejects.toMatchObject({
      reason: "TURN_NOT_FOUND",
      message: expect.stringMatching(
        /has ended \(cancelled\).*POST \/trpc\/turns\.respond with userId and taskId/,
      ),
    });
    // Only the cancel.
    expect(world.engine.optionalCalls).toHaveLength(before + 1);
  });

  test("a turn that its engine has not begun has no question yet", async () => {
    const engine = await world.addEngine("not begun");
    world.engine.onCall = () => {};
    const input = { ...world.input(), userId: engine.userId };
    const starting = startTurn(world.ctx, input);
    const call = await world.engine.callOf(input.request.taskId);
    const { productId, turnId } = input;
    await expect(
      respondToTurn(world.ctx, { productId, address: { turnId }, answer: "yes" }),
    ).rejects.toMatchObject({ reason: "TURN_NOT_FOUND", message: expect.stringContaining("has not begun") });
    call.open();
    call.end();
    await starting;
  });

  test("an engine that has lost its memory since is not asked", async () => {
    const { engine, respond } = await openTurn();
    await world.database.raw`update engines set generation = 2 where id = ${engine.engineId}`;
    await expect(respond()).rejects.toMatchObject({ reason: "GENERATION_CHANGED" });
  });
});

const envelope = (error: string) => ({ error, message: "no" });

describe("an engine's refusal", () => {
  test.each<[string, (call: Call) => void, string, string | undefined]>([
    ["404", answerJson(404), "NOT_SUPPORTED_BY_ENGINE", undefined],
    ["404 with an envelope", answerJson(404, envelope("NOT_FOUND")), "NOT_SUPPORTED_BY_ENGINE", "NOT_FOUND"],
    ["405", answerJson(405, envelope("METHOD")), "NOT_SUPPORTED_BY_ENGINE", "METHOD"],
    [
      "404 without a question",
      answerJson(404, envelope("NO_PENDING_REQUEST")),
      "ENGINE_ERROR",
      "NO_PENDING_REQUEST",
    ],
    [
      "409 without a question",
      answerJson(409, envelope("NO_PENDING_REQUEST")),
      "ENGINE_ERROR",
      "NO_PENDING_REQUEST",
    ],
    ["400", answerJson(400, envelope("INVALID_REQUEST")), "ENGINE_ERROR", "INVALID_REQUEST"],
    ["409", answerJson(409, envelope("BUSY")), "ENGINE_BUSY", "BUSY"],
    ["503", answerJson(503, envelope("DRAINING")), "ENGINE_UNHEALTHY", "DRAINING"],
  ])("%s becomes a listed error, and the question stays open", async (_what, onRespond, reason, code) => {
    const { ctx, input, respond } = await openTurn();
    world.engine.onRespond = onRespond;
    await expect(respond()).rejects.toMatchObject({
      reason,
      engineError: code === undefined ? undefined : expect.objectContaining({ code }),
    });
    expect(ctx.turns.find(input.productId, input.turnId)?.questions.isEmpty).toBe(false);
  });

  test("a lost answer is OUTCOME_UNKNOWN, and nothing is sent again", async () => {
    const { respond } = await openTurn();
    const before = world.engine.optionalCalls.length;
    world.engine.onRespond = (call) => call.destroy();
    await expect(respond()).rejects.toMatchObject({ reason: "OUTCOME_UNKNOWN" });
    expect(world.engine.optionalCalls).toHaveLength(before + 1);
  });
});

test("an answer passes the gate that an operation has closed to wait for the turn", async () => {
  const { ctx, engine, input, respond, call } = await openTurn();
  world.engine.onRespond = (responding) => {
    void call.write(resolved("q") + completed()).then(() => call.end());
    answerJson(200, { status: "resolved" })(responding);
  };
  const closing = world.holds.closeGate(engine.engineId, {
    whenBusy: "wait",
    deadlineMs: 60_000,
    reason: "ENGINE_STOPPED",
  });
  expect(await respond()).toEqual({ status: "resolved" });
  (await closing)[Symbol.dispose]();
  expect((await readAll(ctx, input)).end).toMatchObject({ status: "completed" });
});

test("an answer to a turn that ends meanwhile waits for the operation whose gate is closed", async () => {
  const { ctx, engine, input, respond, call } = await openTurn();
  const { engineId } = engine;
  const holdsBehindGate: number[] = [];
  let isFirst = true;
  const engineReads = new EngineReads(async (users) => {
    const rows = await Promise.all(users.map(async (user) => ctx.engineReads.find(user)));
    if (!isFirst) return rows;
    isFirst = false;
    await call.write(completed());
    call.end();
    const gate = await closing;
    setImmediate(() => {
      holdsBehindGate.push(world.holds.count(engineId));
      gate[Symbol.dispose]();
    });
    return rows;
  });
  const closing = world.holds.closeGate(engineId, {
    whenBusy: "wait",
    deadlineMs: 60_000,
    reason: "ENGINE_STOPPED",
  });
  world.engine.onRespond = answerJson(409, envelope("NO_PENDING_REQUEST"));
  await expect(respond({}, { ...ctx, engineReads })).rejects.toMatchObject({ reason: "ENGINE_ERROR" });
  expect(holdsBehindGate).toEqual([0]);
  expect((await readAll(ctx, input)).end).toMatchObject({ status: "completed" });
});

test("an answer without a request id closes no other question than the oldest one of its time", async () => {
  const { ctx, input, respond, call } = await openTurn();
  await call.write(question("later"));
  const readEvents = async (count: number) =>
    readAll(ctx, input, { stop: (read) => read.events.length === count });
  await readEvents(3);
  world.engine.onRespond = (responding) => {
    void call
      .write(resolved("q"))
      .then(async () => readEvents(4))
      .then(() => answerJson(200, { status: "resolved" })(responding));
  };
  await respond();
  const { questions } = ctx.turns.find(input.productId, input.turnId) ?? {};
  expect(questions?.isEmpty).toBe(false);
  questions?.resolve("later");
  expect(questions?.isEmpty).toBe(true);
});

async function openWaiting() {
  const clock = openMovableClock();
  const config = { turnIdleTimeoutMs: IDLE_MS, hitlTimeoutMs: HITL_MS };
  return { ...(await openTurn({ clock, config })), clock };
}

describe("how long a turn waits", () => {
  test("the silence of an engine that waits for a person does not count, up to ORCH_HITL_TIMEOUT_S", async () => {
    const { ctx, input, call, clock } = await openWaiting();
    world.engine.onCancel = answerJson(404);
    for (let passed = 0; passed + IDLE_MS < HITL_MS; passed += IDLE_MS) clock.advance(IDLE_MS);
    expect(await getTurn(ctx, input)).toMatchObject({ status: "streaming" });
    // Signs of life are no answers.
    await call.write(":\n\n");
    clock.advance(IDLE_MS);
    const { end } = await readAll(ctx, input);
    expect(end).toMatchObject({ status: "failed", reason: "ENGINE_TIMEOUT" });
    expect(end?.message).toBe(
      `the engine waited ${HITL_MS} ms for a person, and nobody answered its question`,
    );
  });

  test("the oldest open question counts, and its answer ends that", async () => {
    const { ctx, input, call, clock } = await openWaiting();
    clock.advance(HITL_MS / 2);
    await call.write(question("later") + resolved("q"));
    await readAll(ctx, input, { stop: (read) => read.events.length === 4 });
    clock.advance(HITL_MS / 2);
    clock.advance(IDLE_MS);
    expect(await getTurn(ctx, input)).toMatchObject({ status: "streaming" });
    clock.advance(HITL_MS / 2);
    expect((await readAll(ctx, input)).end).toMatchObject({
      reason: "ENGINE_TIMEOUT",
      message: `the engine waited ${HITL_MS} ms for a person, and nobody answered one of its questions`,
    });
  });

  test("a limit for people that is shorter than the one for silence counts, too", async () => {
    const clock = openMovableClock();
    const config = { turnIdleTimeoutMs: IDLE_MS, hitlTimeoutMs: 1_000 };
    const { ctx, input, call } = await openTurn({ clock, config });
    await call.write(":\n\n");
    clock.advance(1_000);
    expect((await readAll(ctx, input)).end).toMatchObject({
      reason: "ENGINE_TIMEOUT",
      message: expect.stringContaining("for a person"),
    });
  });

  test.each([
    ["with", "q"],
    ["without", undefined],
  ])(
    "after an accepted answer %s a request id, silence counts again from then on, without hitl_resolved",
    async (_what, requestId) => {
      const { ctx, input, respond, clock } = await openWaiting();
      world.engine.onRespond = answerJson(200, { status: "resolved", request_id: requestId });
      clock.advance(IDLE_MS);
      clock.advance(IDLE_MS - 1_000);
      await respond();
      clock.advance(IDLE_MS / 2);
      expect(await getTurn(ctx, input)).toMatchObject({ status: "streaming" });
      clock.advance(IDLE_MS / 2);
      clock.advance(IDLE_MS / 2);
      expect((await readAll(ctx, input)).end).toMatchObject({
        reason: "ENGINE_TIMEOUT",
        message: `the engine sent nothing for ${IDLE_MS} ms`,
      });
    },
  );
});
