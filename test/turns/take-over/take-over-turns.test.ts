import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { cancelTurn } from "../../../server/turns/cancel-turn.ts";
import { drainTurns } from "../../../server/turns/drain-turns.ts";
import { getTurn } from "../../../server/turns/read/get-turn.ts";
import { startTurn, type StartTurnInput } from "../../../server/turns/start/start-turn.ts";
import { takeOverTurns } from "../../../server/turns/take-over/take-over-turns.ts";
import { completed, delta, numbered, refuse, sse, started, type Replay } from "../engine-double.ts";
import { interceptStatements, LOG_COMMIT } from "../intercept-statements.ts";
import { openMovableClock } from "../movable-clock.ts";
import {
  openTurnWorld,
  readAll,
  seqsOf,
  type Read,
  type TurnProcess,
  type TurnWorld,
  type WorldOptions,
} from "../turn-world.ts";

let world: TurnWorld;
beforeAll(async () => {
  world = await openTurnWorld({ timing: { replayAnswerMs: 60_000, brokenMs: 50 } });
});
afterAll(async () => world[Symbol.asyncDispose]());
beforeEach(() => {
  world.engine.onReplay = refuse(404);
});

const texts = (read: Read) =>
  read.events.map(({ data }) => (data as { text?: string }).text).filter((text) => text !== undefined);
const asks = (id: string) => sse("hitl_request", { request_id: id, task_id: "t" });
const FIRST_ID = 100;
const first = () => numbered(FIRST_ID, started());

/** A turn of which the log has one event, whose id is 100. Its owner dies when the test says so. */
async function openOwned(own: WorldOptions = {}, user = "ann") {
  const owner = world.openProcess(own);
  world.engine.onCall = (call) => call.open();
  const input = { ...world.input(), userId: user };
  await startTurn(owner.ctx, input);
  const call = await world.engine.callOf(input.request.taskId);
  await call.write(first());
  await expect.poll(async () => loggedSeq(input.turnId), { interval: 5 }).toBe(1);
  return { owner, input, call };
}

/** The next owner: another process, which has the turns of the dead one when this returns. */
async function takeOver(dead: TurnProcess, own: WorldOptions = {}): Promise<TurnProcess> {
  const next = world.openProcess(own);
  await takeOverTurns(next.ctx, [dead.replicaId]);
  return next;
}

/** Answers each replay of the turn with these pieces, and ends the stream if they have a last event. */
function replayWith(...pieces: string[]): void {
  world.engine.onReplay = (replay) => {
    replay.open();
    for (const piece of pieces) replay.response.write(piece);
    if (pieces.at(-1)?.includes("completed") === true) replay.end();
  };
}

async function loggedSeq(turnId: string): Promise<number> {
  const [row] = await world.database.raw<{ last: number }[]>`
    select coalesce(max(last_seq), 0)::float8 as last from turn_events where turn_id = ${turnId}`;
  return row?.last ?? 0;
}

const replaysOf = (input: StartTurnInput): Replay[] =>
  world.engine.replays.filter((replay) => replay.taskId === input.request.taskId);
const callsOf = (input: StartTurnInput) =>
  world.engine.calls.filter((call) => call.body["task_id"] === input.request.taskId);

async function expectOwnerLost(next: TurnProcess, input: StartTurnInput): Promise<Read> {
  const read = await readAll(next.ctx, input);
  expect(read.end).toMatchObject({ status: "interrupted", reason: "OWNER_LOST" });
  const reserved = (read.end?.lastSeq ?? 0) - 1;
  expect(reserved).toBeGreaterThanOrEqual(1024);
  expect(read.gaps).toEqual([{ fromSeq: read.events.length + 1, toSeq: reserved, reason: "lost" }]);
  // The engine gets the message once, whatever happens.
  expect(callsOf(input)).toHaveLength(1);
  return read;
}

describe("a turn whose owner has died", () => {
  test("goes on after the last event in the log, with the same numbers, and its engine gets the message once", async () => {
    const { owner, input, call } = await openOwned();
    await owner.kill();
    await expect.poll(() => call.isClosed).toBe(true);
    replayWith(numbered(101, delta("a")), numbered(102, delta("b")), numbered(103, completed()));
    const next = await takeOver(owner);
    const read = await readAll(next.ctx, input);
    expect(seqsOf(read)).toEqual([1, 2, 3, 4]);
    expect(texts(read)).toEqual(["a", "b"]);
    expect(read.end).toMatchObject({ status: "completed", lastSeq: 5 });
    expect(replaysOf(input).map(({ lastEventId }) => lastEventId)).toEqual([`${FIRST_ID}`]);
    expect(callsOf(input)).toHaveLength(1);
    expect((await readAll(world.ctx, input)).events).toEqual(read.events);
    // The task is free again for this owner and for all others.
    expect(next.ctx.turns.size).toBe(0);
    expect(next.ctx.holds.count(world.engines[0]?.engineId ?? "")).toBe(0);
  });

  test("makes a reader with more than the log has wait, and gives it each event once", async () => {
    let isStuck = false;
    const { owner, input, call } = await openOwned({
      wrapRaw: (raw) =>
        interceptStatements(raw, LOG_COMMIT, async (send) => (isStuck ? new Promise(() => {}) : send())),
    });
    isStuck = true;
    await call.write(numbered(101, delta("a")) + numbered(102, delta("b")));
    const shown = await readAll(owner.ctx, input, { stop: (read) => read.events.length === 3 });
    expect(await loggedSeq(input.turnId)).toBe(1);
    await owner.kill();

    const opened = Promise.withResolvers<Replay>();
    world.engine.onReplay = (replay) => {
      replay.open();
      opened.resolve(replay);
    };
    const next = await takeOver(owner);
    const seen: number[] = [];
    const reading = readAll(next.ctx, input, {
      afterSeq: 3,
      stop: (read) => {
        seen.splice(0, seen.length, ...seqsOf(read));
        return false;
      },
    });
    const replay = await opened.promise;
    await replay.write(numbered(101, delta("a")) + numbered(102, delta("b")));
    await expect.poll(async () => loggedSeq(input.turnId)).toBe(3);
    expect(seen).toEqual([]);
    await replay.write(numbered(103, completed()));
    replay.end();
    const rest = await reading;
    expect(seqsOf(rest)).toEqual([4]);
    expect(rest.gaps).toEqual([]);
    expect(rest.end).toMatchObject({ status: "completed", lastSeq: 5 });
    const all = await readAll(next.ctx, input);
    expect(all.events.map(({ data }) => data).slice(0, 3)).toEqual(shown.events.map(({ data }) => data));
  });

  test("that is cancelled before the replay has caught up ends past everything that was shown", async () => {
    const { owner, input } = await openOwned();
    await owner.kill();
    world.engine.onReplay = (replay) => replay.open();
    const next = await takeOver(owner);
    await expect.poll(() => replaysOf(input)).toHaveLength(1);
    const waiting = readAll(next.ctx, input, { afterSeq: 500 });
    expect(await cancelTurn(next.ctx, input)).toMatchObject({ status: "cancelled" });
    const read = await readAll(next.ctx, input);
    const lastSeq = read.end?.lastSeq ?? 0;
    expect(lastSeq).toBeGreaterThan(1_024);
    expect(read.gaps).toEqual([{ fromSeq: 2, toSeq: lastSeq - 1, reason: "lost" }]);
    const rest = await waiting;
    expect(rest.gaps).toEqual([{ fromSeq: 501, toSeq: lastSeq - 1, reason: "lost" }]);
    expect(rest.end).toEqual(read.end);
  });

  test("is live at once, although its engine hangs, and others go on meanwhile", async () => {
    const hung = await openOwned();
    const other = await openOwned();
    await Promise.all([hung.owner.kill(), other.owner.kill()]);
    world.engine.onReplay = (replay) => {
      if (replay.taskId === hung.input.request.taskId) return;
      replay.open();
      replay.response.end(numbered(101, completed()));
    };
    const next = world.openProcess();
    const dead = [hung.owner.replicaId, other.owner.replicaId];
    expect(await takeOverTurns(next.ctx, dead)).toEqual({ taken: 2, ended: 0 });
    const { productId, turnId } = hung.input;
    expect(next.ctx.turns.find(productId, turnId)?.state).toBe("attaching");
    expect(await startTurn(next.ctx, hung.input)).toMatchObject({ created: false, status: "streaming" });
    expect((await readAll(next.ctx, other.input)).end).toMatchObject({ status: "completed" });
    expect(await cancelTurn(next.ctx, hung.input)).toMatchObject({ status: "cancelled" });
    expect(next.ctx.turns.size).toBe(0);
  });

  test("holds its engine from the takeover on", async () => {
    const { engineId } = await world.addEngine("held");
    const { owner, input } = await openOwned({}, "held");
    await owner.kill();
    world.engine.onReplay = () => {};
    const next = await takeOver(owner);
    const closing = world.holds.closeGate(engineId, {
      whenBusy: "interrupt",
      deadlineMs: 0,
      reason: "ENGINE_STOPPED",
    });
    expect((await readAll(next.ctx, input)).end).toMatchObject({
      status: "interrupted",
      reason: "ENGINE_STOPPED",
    });
    (await closing)[Symbol.dispose]();
  });

  test.each([
    ["completed", completed(), { status: "completed", reason: null }],
    [
      "an error",
      sse("error", { error: "NO_LUCK", message: "m" }),
      { status: "failed", reason: "ENGINE_ERROR" },
    ],
  ])(
    "ends as its engine said if the log has the last event, %s, and not the end",
    async (_what, last, end) => {
      // The engine does not close its stream, so the owner waits a little before it ends the turn.
      const { owner, input, call } = await openOwned({ timing: { closeStreamMs: 60_000 } });
      await call.write(numbered(101, last));
      await expect.poll(async () => loggedSeq(input.turnId)).toBe(2);
      await owner.kill();
      const next = await takeOver(owner);
      const read = await readAll(next.ctx, input);
      expect(read.gaps).toEqual([]);
      expect(read.end).toMatchObject({ ...end, lastSeq: 3 });
      expect(replaysOf(input)).toEqual([]);
    },
  );

  test("counts its bytes on", async () => {
    const { owner, input } = await openOwned();
    await owner.kill();
    const large = "x".repeat(600);
    replayWith(numbered(101, delta(large)), numbered(102, delta(large)), numbered(103, completed()));
    const next = await takeOver(owner, { config: { turnMaxBytes: 1_000 } });
    expect((await readAll(next.ctx, input)).end).toMatchObject({
      status: "failed",
      reason: "TURN_TOO_LARGE",
    });
  });

  test("goes on once its engine's runtime answers", async () => {
    const engine = await world.addEngine("unseen");
    const { owner, input } = await openOwned({}, "unseen");
    await owner.kill();
    engine.isCurrent = false;
    replayWith(numbered(101, completed()));
    const next = await takeOver(owner);
    const reading = readAll(next.ctx, input, { afterSeq: 1 });
    expect(replaysOf(input)).toEqual([]);
    engine.isCurrent = true;
    expect((await reading).end).toMatchObject({ status: "completed", lastSeq: 3 });
  });

  test("goes on waiting for a person, however long the engine is silent", async () => {
    const clock = openMovableClock();
    const { owner, input, call } = await openOwned();
    await call.write(numbered(101, asks("q1")) + numbered(102, asks("q2")));
    await call.write(numbered(103, sse("hitl_resolved", { request_id: "q1" })));
    await expect.poll(async () => loggedSeq(input.turnId)).toBe(4);
    await owner.kill();
    const opened = Promise.withResolvers<Replay>();
    world.engine.onReplay = (replay) => {
      replay.open();
      opened.resolve(replay);
    };
    const next = await takeOver(owner, { clock });
    const replay = await opened.promise;
    for (let hour = 0; hour < 24; hour += 1) clock.advance(3_600_000);
    await replay.write(numbered(104, sse("hitl_resolved", { request_id: "q2" })));
    await expect.poll(async () => loggedSeq(input.turnId)).toBe(5);
    // From here on its silence counts.
    const reading = readAll(next.ctx, input);
    clock.advance(3_600_000);
    clock.advance(3_600_000);
    expect((await reading).end).toMatchObject({ status: "failed", reason: "ENGINE_TIMEOUT" });
  });
});

describe("a turn that no owner can read on ends interrupted, past everything that was shown", () => {
  test.each([400, 401, 404, 405, 410])("if the engine answers %i", async (status) => {
    const { owner, input } = await openOwned();
    await owner.kill();
    world.engine.onReplay = refuse(status);
    const next = await takeOver(owner);
    const { end } = await expectOwnerLost(next, input);
    expect(end?.message).toContain(`the engine answered ${status}`);
    expect(replaysOf(input)).toHaveLength(1);
  });

  test.each([503, 500])("if the engine goes on answering %i", async (status) => {
    const { owner, input } = await openOwned();
    await owner.kill();
    world.engine.onReplay = refuse(status);
    await expectOwnerLost(await takeOver(owner, { timing: { attachMs: 2_000 } }), input);
    expect(replaysOf(input).length).toBeGreaterThan(1);
  });

  test("if the answer is no event stream", async () => {
    const { owner, input } = await openOwned();
    await owner.kill();
    world.engine.onReplay = (replay) => replay.response.end("hello");
    await expectOwnerLost(await takeOver(owner), input);
  });

  test("if the replay is of another turn", async () => {
    const { owner, input } = await openOwned();
    await owner.kill();
    world.engine.onReplay = ({ response }) => {
      response.writeHead(200, { "content-type": "text/event-stream", "x-turn-id": crypto.randomUUID() });
      response.end(numbered(101, completed()));
    };
    await expectOwnerLost(await takeOver(owner), input);
  });

  test.each([
    ["the same", numbered(101, delta("b"))],
    ["a smaller one", numbered(99, delta("b"))],
    ["none", delta("b")],
    ["no number", numbered("b", delta("b"))],
    ["a number with a leading zero", numbered("0102", delta("b"))],
  ])("if an event's id does not grow: %s", async (_what, wrong) => {
    const { owner, input } = await openOwned();
    await owner.kill();
    replayWith(numbered(101, delta("a")) + wrong + numbered(104, completed()));
    const read = await expectOwnerLost(await takeOver(owner), input);
    expect(texts(read)).toEqual(["a"]);
  });

  test.each([
    ["of another generation", { generation: 2 }],
    ["booting", { status: "starting" }],
    ["stopped", { status: "stopped" }],
  ])("if the engine is %s, and the engine is not asked", async (what, change) => {
    const engine = await world.addEngine(what);
    const { owner, input } = await openOwned({}, what);
    await owner.kill();
    Object.assign(engine, change);
    const { end } = await expectOwnerLost(await takeOver(owner), input);
    expect(end?.engineMayContinue).toBe(false);
    expect(replaysOf(input)).toEqual([]);
  });

  test("if the engine was destroyed", async () => {
    const { engineId } = await world.addEngine("destroyed");
    const { owner, input } = await openOwned({}, "destroyed");
    await owner.kill();
    await world.database.raw`delete from engines where id = ${engineId}`;
    await expectOwnerLost(await takeOver(owner), input);
  });

  test("if the runtime does not answer in time", async () => {
    const engine = await world.addEngine("silent");
    const { owner, input } = await openOwned({}, "silent");
    await owner.kill();
    engine.isCurrent = false;
    const { end } = await expectOwnerLost(await takeOver(owner, { timing: { attachMs: 0 } }), input);
    expect(end?.message).toContain("runtime does not answer");
  });

  test.each([
    ["does not number its events", delta("a")],
    ["gives two events one id", numbered(FIRST_ID, delta("a"))],
    ["gives an event an id that is no number", numbered("x", delta("a"))],
  ])("at once if the engine %s", async (_what, event) => {
    const { owner, input, call } = await openOwned();
    await call.write(event);
    await expect.poll(async () => loggedSeq(input.turnId)).toBe(2);
    await owner.kill();
    const next = world.openProcess();
    expect(await takeOverTurns(next.ctx, [owner.replicaId])).toEqual({ taken: 0, ended: 1 });
    await expectOwnerLost(next, input);
    expect(replaysOf(input)).toEqual([]);
  });
});

/** The engine has the request, and has not answered it. */
async function openStarting() {
  const owner = world.openProcess({ timing: { startAnswerMs: 10 } });
  world.engine.onCall = () => {};
  const input = world.input();
  expect(await startTurn(owner.ctx, input)).toMatchObject({ status: "starting" });
  const call = await world.engine.callOf(input.request.taskId);
  await owner.kill();
  return { owner, input, name: String(call.headers["x-turn-id"]) };
}

describe("a turn that was starting when its owner died", () => {
  test("goes on from its first event if the engine says that the newest turn of the task is this one", async () => {
    const { owner, input, name } = await openStarting();
    expect(name).toBe(input.turnId);
    world.engine.onReplay = ({ response }) => {
      response.writeHead(200, { "content-type": "text/event-stream", "x-turn-id": name });
      response.end(numbered(1, started()) + numbered(2, delta("a")) + numbered(3, completed()));
    };
    const next = await takeOver(owner);
    const read = await readAll(next.ctx, input);
    expect(seqsOf(read)).toEqual([1, 2, 3]);
    expect(read.end).toMatchObject({ status: "completed" });
    expect(replaysOf(input).map(({ lastEventId }) => lastEventId)).toEqual([undefined]);
    expect(callsOf(input)).toHaveLength(1);
  });

  test.each([
    ["an older turn of the task", { "x-turn-id": crypto.randomUUID() }],
    ["a turn without a name", {}],
  ])("ends failed, its outcome unknown, if the engine has %s", async (_what, headers) => {
    const { owner, input } = await openStarting();
    world.engine.onReplay = ({ response }) => {
      response.writeHead(200, { "content-type": "text/event-stream", ...headers });
      response.end(numbered(1, started()) + numbered(2, completed()));
    };
    const read = await readAll((await takeOver(owner)).ctx, input);
    expect(read.events).toEqual([]);
    expect(read.end).toMatchObject({ status: "failed", reason: "OUTCOME_UNKNOWN", engineMayContinue: true });
    expect(callsOf(input)).toHaveLength(1);
  });

  test("ends failed, its outcome unknown, if the engine has no such task or no such call", async () => {
    const { owner, input } = await openStarting();
    const read = await readAll((await takeOver(owner)).ctx, input);
    expect(read.end).toMatchObject({ status: "failed", reason: "OUTCOME_UNKNOWN" });
  });
});

describe("an owner that comes back", () => {
  test("changes nothing in the log, stops reading, and its readers get the next owner's events", async () => {
    const { owner: zombie, input, call } = await openOwned();
    const opened = Promise.withResolvers<Replay>();
    world.engine.onReplay = (replay) => {
      replay.open();
      opened.resolve(replay);
    };
    const reading = readAll(zombie.ctx, input);
    const next = await takeOver(zombie);
    const replay = await opened.promise;
    await replay.write(numbered(101, delta("a")));
    await expect.poll(async () => loggedSeq(input.turnId)).toBe(2);
    // Both owners get all events.
    await call.write(numbered(101, delta("a")) + numbered(102, delta("b")));
    await expect.poll(() => call.isClosed).toBe(true);
    expect(zombie.ctx.turns.find(input.productId, input.turnId)).toBeUndefined();
    expect(await loggedSeq(input.turnId)).toBe(2);
    await replay.write(numbered(102, delta("b")) + numbered(103, completed()));
    replay.end();
    for (const read of [await readAll(next.ctx, input), await reading]) {
      expect(seqsOf(read)).toEqual([1, 2, 3, 4]);
      expect(texts(read)).toEqual(["a", "b"]);
      expect(read.end).toMatchObject({ status: "completed", lastSeq: 5 });
    }
    const rows = await world.database.raw`select first_seq from turn_events where turn_id = ${input.turnId}`;
    expect(new Set(rows.map((row) => row["first_seq"])).size).toBe(rows.length);
  });
});

describe("a drain", () => {
  test("leaves a turn of an engine that numbers its events to the next owner, with all that was read", async () => {
    const { owner, input, call } = await openOwned();
    await call.write(numbered(101, delta("a")));
    const reading = readAll(owner.ctx, input);
    await expect.poll(() => owner.ctx.turns.find(input.productId, input.turnId)?.lastSeq).toBe(2);
    await drainTurns(owner.ctx, 0);
    await expect.poll(() => call.isClosed).toBe(true);
    expect(await loggedSeq(input.turnId)).toBe(2);
    expect(await getTurn(world.ctx, input)).toMatchObject({ status: "streaming", end: null });
    owner.ctx.turns.handOver();
    await expect(reading).rejects.toMatchObject({ name: "AbortError" });
    replayWith(numbered(102, delta("b")), numbered(103, completed()));
    const next = await takeOver(owner);
    const rest = await readAll(next.ctx, input, { afterSeq: 2 });
    expect(texts(rest)).toEqual(["b"]);
    expect(rest.end).toMatchObject({ status: "completed", lastSeq: 5 });
    expect(replaysOf(input).map(({ lastEventId }) => lastEventId)).toEqual(["101"]);
  });

  test("leaves a turn that was taken over and is not attached yet", async () => {
    const { owner, input } = await openOwned();
    await owner.kill();
    world.engine.onReplay = () => {};
    const second = await takeOver(owner);
    await drainTurns(second.ctx, 0);
    expect(await getTurn(world.ctx, input)).toMatchObject({ status: "streaming", end: null });
    replayWith(numbered(101, completed()));
    const third = await takeOver(second);
    expect((await readAll(third.ctx, input)).end).toMatchObject({ status: "completed", lastSeq: 3 });
  });
});

describe("a connection that breaks while its owner lives", () => {
  test("is replaced by the replay, and readers get each event once", async () => {
    const { owner, input, call } = await openOwned();
    replayWith(numbered(102, delta("b")), numbered(103, completed()));
    // The last event is cut, so the replay has it again.
    await call.write(`${numbered(101, delta("a"))}id: 102\nevent: text_delta\ndata: {"te`);
    await expect.poll(() => owner.ctx.turns.find(input.productId, input.turnId)?.lastSeq).toBe(2);
    call.destroy();
    const read = await readAll(owner.ctx, input);
    expect(texts(read)).toEqual(["a", "b"]);
    expect(seqsOf(read)).toEqual([1, 2, 3, 4]);
    expect(read.end).toMatchObject({ status: "completed", lastSeq: 5 });
    expect(replaysOf(input).map(({ lastEventId }) => lastEventId)).toEqual(["101"]);
  });

  test("is replaced only so often without a new event", async () => {
    const { owner, input, call } = await openOwned();
    world.engine.onReplay = (replay) => {
      replay.open();
      replay.response.write(": nothing new\n\n", () => replay.destroy());
    };
    call.destroy();
    const { end } = await readAll(owner.ctx, input);
    expect(end).toMatchObject({ status: "failed", reason: "ENGINE_CLOSED", lastSeq: 2 });
    expect(replaysOf(input).length).toBeLessThan(10);
  });

  test("ends the turn as before if the engine has no replay, or its process is gone", async () => {
    const engine = await world.addEngine("breaks");
    const noReplay = await openOwned({}, "breaks");
    noReplay.call.destroy();
    expect((await readAll(noReplay.owner.ctx, noReplay.input)).end).toMatchObject({
      status: "failed",
      reason: "ENGINE_CLOSED",
    });
    const gone = await openOwned({}, "breaks");
    engine.generation = 2;
    gone.call.destroy();
    expect((await readAll(gone.owner.ctx, gone.input)).end).toMatchObject({
      status: "interrupted",
      reason: "ENGINE_RESTARTED",
    });
    expect(replaysOf(gone.input)).toEqual([]);
  });
});
