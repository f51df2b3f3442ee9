import { randomUUID } from "node:crypto";
import { createServer } from "node:net";
import { once } from "node:events";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { cancelTurn } from "../../../server/turns/cancel-turn.ts";
import { getTurn } from "../../../server/turns/read/get-turn.ts";
import { LiveTurn } from "../../../server/turns/model/live-turn.ts";
import { startTurn } from "../../../server/turns/start/start-turn.ts";
import { takePort } from "../../support/ports.ts";
import { completed, delta, started, streamOf, type Call } from "../engine-double.ts";
import { interceptStatements, TURN_BEGIN } from "../intercept-statements.ts";
import { openMovableClock } from "../movable-clock.ts";
import { openTurnWorld, readAll, type EngineRowDouble, type TurnWorld } from "../turn-world.ts";

let world: TurnWorld;
beforeAll(async () => {
  world = await openTurnWorld();
});
afterAll(async () => world[Symbol.asyncDispose]());

const whole = streamOf(started(), delta("hi"), completed());
const answer =
  (status: number, body: unknown, type = "application/json") =>
  (call: Call) => {
    const text = typeof body === "string" ? body : JSON.stringify(body);
    call.response.writeHead(status, { "content-type": type }).end(text);
  };

async function moveEngine({ engineId }: EngineRowDouble, port: number): Promise<void> {
  await world.database
    .raw`update engines set endpoint = ${`http://127.0.0.1:${port}`} where id = ${engineId}`;
}

/** Calls back after the first row is written, and before the engine is held. */
function openProcessWith(onFirstRow: () => Promise<void>) {
  let rows = 0;
  const { ctx } = world.openProcess({
    wrapRaw: (raw) =>
      interceptStatements(raw, TURN_BEGIN, async (send) => {
        const row = await send();
        rows += 1;
        if (rows === 1) await onFirstRow();
        return row;
      }),
  });
  return ctx;
}

describe("what the engine gets", () => {
  test("known fields get the engine's names, and all others pass unchanged", async () => {
    world.engine.onCall = whole;
    const before = world.engine.calls.length;
    const input = world.input({
      media: [{ editMessageId: "inner stays" }],
      direct: true,
      editMessageId: "e",
      retryMessageId: "r",
      newField: { taskId: 1 },
    });
    await startTurn(world.ctx, input);
    expect(world.engine.calls.slice(before).map((call) => call.body)).toEqual([
      {
        message: "hello",
        task_id: input.request.taskId,
        media: [{ editMessageId: "inner stays" }],
        direct: true,
        edit_message_id: "e",
        retry_message_id: "r",
        newField: { taskId: 1 },
      },
    ]);
    expect(world.engine.calls[before]?.headers).toMatchObject({
      "x-engine-key": world.engines[0]?.apiKey,
      accept: "text/event-stream",
      "content-type": "application/json",
    });
  });

  test("a message of a megabyte arrives", async () => {
    world.engine.onCall = whole;
    const message = "ä".repeat(1_000_000);
    const input = world.input({ message });
    await startTurn(world.ctx, input);
    const call = world.engine.calls.find((one) => one.body["task_id"] === input.request.taskId);
    expect(call?.body["message"]).toBe(message);
  });
});

describe("one turn for one id", () => {
  test("the same id and input is one call to the engine, in whatever order the fields are", async () => {
    world.engine.onCall = whole;
    const input = world.input({ b: 1, a: { y: 1, x: "\ud800" } });
    const first = await startTurn(world.ctx, input);
    await readAll(world.ctx, input);
    const again = { ...input, request: { a: { x: "\ud800", y: 1 }, b: 1, ...input.request } };
    const second = await startTurn(world.ctx, { ...again, turnId: input.turnId.toUpperCase() });
    expect(first).toMatchObject({ created: true, generation: 1 });
    expect(second).toEqual({
      turnId: input.turnId,
      status: "completed",
      generation: 1,
      created: false,
      live: undefined,
    });
    expect(world.engine.calls.filter((call) => call.body["task_id"] === input.request.taskId)).toHaveLength(
      1,
    );
  });

  test("the same id with another input is a mismatch, during the turn and after it", async () => {
    world.engine.onCall = (call) => call.open();
    const input = world.input();
    await startTurn(world.ctx, input);
    const other = { ...input, request: { ...input.request, message: "other" } };
    await expect(startTurn(world.ctx, other)).rejects.toMatchObject({ reason: "IDEMPOTENCY_MISMATCH" });
    await cancelTurn(world.ctx, input);
    await expect(startTurn(world.ctx, other)).rejects.toMatchObject({ reason: "IDEMPOTENCY_MISMATCH" });
    const generation = { ...input, expectGeneration: 1 };
    await expect(startTurn(world.ctx, generation)).rejects.toMatchObject({ reason: "IDEMPOTENCY_MISMATCH" });
  });

  test("concurrent starts of one id make one turn and get one answer", async () => {
    world.engine.onCall = whole;
    const input = world.input();
    const results = await Promise.all(Array.from({ length: 8 }, () => startTurn(world.ctx, input)));
    expect(results.filter((result) => result.created)).toHaveLength(1);
    expect(world.engine.calls.filter((call) => call.body["task_id"] === input.request.taskId)).toHaveLength(
      1,
    );
  });

  test("concurrent starts of one id at two replicas make one turn", async () => {
    world.engine.onCall = whole;
    const other = world.openProcess();
    const input = world.input();
    const results = await Promise.all([startTurn(world.ctx, input), startTurn(other.ctx, input)]);
    expect(results.filter((result) => result.created)).toHaveLength(1);
    expect(world.engine.calls.filter((call) => call.body["task_id"] === input.request.taskId)).toHaveLength(
      1,
    );
    await readAll(world.ctx, input);
    await readAll(other.ctx, input);
  });

  test("equal ids in two products are two turns, and no product sees the turn of the other", async () => {
    world.engine.onCall = whole;
    const productId = await world.addProduct();
    await world.addEngine("ann", productId);
    const input = world.input();
    await startTurn(world.ctx, input);
    await expect(getTurn(world.ctx, { productId, turnId: input.turnId })).rejects.toMatchObject({
      reason: "TURN_NOT_FOUND",
    });
    await expect(readAll(world.ctx, { productId, turnId: input.turnId })).rejects.toMatchObject({
      reason: "TURN_NOT_FOUND",
    });
    await expect(cancelTurn(world.ctx, { productId, turnId: input.turnId })).rejects.toMatchObject({
      reason: "TURN_NOT_FOUND",
    });
    const second = await startTurn(world.ctx, { ...input, productId });
    expect(second.created).toBe(true);
  });

  test("a second turn on a task with a live turn is refused", async () => {
    world.engine.onCall = (call) => call.open();
    const input = world.input();
    await startTurn(world.ctx, input);
    const second = { ...input, turnId: randomUUID() };
    await expect(startTurn(world.ctx, second)).rejects.toMatchObject({ reason: "TURN_IN_PROGRESS" });
    await cancelTurn(world.ctx, input);
    await expect(getTurn(world.ctx, second)).rejects.toMatchObject({ reason: "TURN_NOT_FOUND" });
  });

  test.each(["", "a\0b", "\ud800", "x".repeat(513), 7])("the task id %j is invalid input", async (taskId) => {
    const input = world.input({ taskId });
    await expect(startTurn(world.ctx, input)).rejects.toMatchObject({
      reason: "INVALID_INPUT",
      issues: [{ path: "request.taskId" }],
    });
  });
});

test.each([
  ["accepts", () => vi.spyOn(LiveTurn.prototype, "markStreaming")],
  ["sends an event", () => vi.spyOn(LiveTurn.prototype, "append")],
])("a defect of ours while the engine %s is not reported as the engine's error", async (_when, spyOn) => {
  world.engine.onCall = streamOf(started(), delta("a"), completed());
  const spy = spyOn().mockImplementationOnce(() => {
    throw new Error("ours");
  });
  try {
    const input = world.input();
    await startTurn(world.ctx, input);
    const { end } = await readAll(world.ctx, input);
    const message = "the service failed to read the turn";
    expect(end).toMatchObject({ status: "failed", reason: "OUTCOME_UNKNOWN", message });
  } finally {
    spy.mockRestore();
  }
});

describe("refusals before the stream", () => {
  const envelope = { error: "CODE", message: "why", details: { a: 1 } };
  test.each([
    [401, "ENGINE_ERROR"],
    [409, "TURN_IN_PROGRESS"],
    [404, "NOT_SUPPORTED_BY_ENGINE"],
    [405, "NOT_SUPPORTED_BY_ENGINE"],
    [503, "ENGINE_UNHEALTHY"],
    [413, "ENGINE_ERROR"],
    [422, "ENGINE_ERROR"],
  ] as const)("%i is %s and leaves no turn, so the id can be used again", async (status, reason) => {
    world.engine.onCall = answer(status, envelope);
    const engine = await world.addEngine(`refused ${status}`);
    const input = { ...world.input(), userId: engine.userId };
    await expect(startTurn(world.ctx, input)).rejects.toMatchObject({
      reason,
      engineError: { status, code: "CODE", message: "why", details: { a: 1 } },
    });
    await expect(getTurn(world.ctx, input)).rejects.toMatchObject({ reason: "TURN_NOT_FOUND" });
    expect(world.holds.count(engine.engineId)).toBe(0);
    world.engine.onCall = whole;
    expect(await startTurn(world.ctx, input)).toMatchObject({ created: true });
  });

  test("an error that may pass has a time to wait", async () => {
    world.engine.onCall = answer(503, envelope);
    await expect(startTurn(world.ctx, world.input())).rejects.toMatchObject({ retryAfterMs: 1_000 });
  });

  test.each([
    [500, answer(500, envelope), { code: "CODE", message: "why", details: { a: 1 } }],
    [502, answer(502, "<html>Bad Gateway</html>", "text/html"), { code: "HTTP_502" }],
    [302, answer(302, ""), { code: "HTTP_302" }],
    [200, answer(200, "<html>It works!</html>", "text/html"), { code: "HTTP_200" }],
    [204, (call: Call) => call.response.writeHead(204).end(), { code: "HTTP_204" }],
  ] as const)(
    "%i fails the turn for good, and a repeated start finds it failed",
    async (status, behaviour, engineError) => {
      world.engine.onCall = behaviour;
      const input = world.input();
      await expect(startTurn(world.ctx, input)).rejects.toMatchObject({
        reason: "ENGINE_ERROR",
        engineError: { status, ...engineError },
      });
      world.engine.onCall = whole;
      expect(await startTurn(world.ctx, input)).toMatchObject({ created: false, status: "failed" });
      const turn = await getTurn(world.ctx, input);
      expect(turn).toMatchObject({
        status: "failed",
        lastSeq: 1,
        end: {
          status: "failed",
          reason: "ENGINE_REFUSED",
          engineError,
          lastSeq: 1,
          engineMayContinue: status === 200,
        },
      });
      expect(turn.end?.engineError).not.toHaveProperty("status");
      expect((await readAll(world.ctx, input)).batches).toEqual([{ lastSeq: 1, events: [], end: turn.end }]);
    },
  );

  test("an error body of ten megabytes is not read to its end", async () => {
    const piece = "x".repeat(100_000);
    let pieces = 0;
    const closed = Promise.withResolvers<void>();
    world.engine.onCall = ({ response }) => {
      response.writeHead(500, { "content-type": "text/plain" }).on("close", () => closed.resolve());
      const writeNext = (error?: Error | null) => {
        if (error) return;
        pieces += 1;
        if (pieces < 100) response.write(piece, writeNext);
        else response.end(piece);
      };
      writeNext();
    };
    await expect(startTurn(world.ctx, world.input())).rejects.toMatchObject({
      engineError: { status: 500, code: "HTTP_500" },
    });
    await closed.promise;
    expect(pieces).toBeLessThan(100);
  });

  test("an error body that never ends is cut off, and only its status counts", async () => {
    world.engine.onCall = (call) => {
      call.response.writeHead(500, { "content-type": "application/json" });
      call.response.write('{"error":"CODE",');
    };
    const { ctx } = world.openProcess({ timing: { errorBodyMs: 300 } });
    const input = world.input();
    await expect(startTurn(ctx, input)).rejects.toMatchObject({
      reason: "ENGINE_ERROR",
      engineError: { status: 500, code: "HTTP_500" },
    });
    await expect.poll(() => world.engine.calls.at(-1)?.isClosed).toBe(true);
    expect((await getTurn(ctx, input)).end).toMatchObject({ reason: "ENGINE_REFUSED" });
  });

  test("a turn without the content type of an event stream fails with both content types", async () => {
    world.engine.onCall = (call) =>
      call.response.writeHead(200, { "content-type": "text/plain" }).end(started());
    const message = expect.stringMatching(/200 with text\/plain: .*text\/event-stream/);
    await expect(startTurn(world.ctx, world.input())).rejects.toMatchObject({
      reason: "ENGINE_ERROR",
      message,
    });
  });

  test("a crash in a handler points to the engine's log", async () => {
    world.engine.onCall = (call) =>
      call.response.writeHead(500, { "content-type": "text/html" }).end("<h1>Error</h1>");
    const engineError = {
      message: expect.stringMatching(/500 \(text\/html\): the last lines of the engine's log/),
    };
    await expect(startTurn(world.ctx, world.input())).rejects.toMatchObject({ engineError });
  });

  test("an engine key that the engine echoes is hidden from the caller", async () => {
    world.engine.onCall = (call) =>
      answer(401, { error: "NO", message: `bad ${String(call.headers["x-engine-key"])}` })(call);
    await expect(startTurn(world.ctx, world.input())).rejects.toMatchObject({
      engineError: { message: "bad [hidden]" },
    });
  });

  test("a user without an engine is ENGINE_NOT_FOUND and leaves no turn", async () => {
    const input = { ...world.input(), userId: "no engine" };
    await expect(startTurn(world.ctx, input)).rejects.toMatchObject({ reason: "ENGINE_NOT_FOUND" });
    expect(world.ctx.turns.find(input.productId, input.turnId)).toBeUndefined();
  });

  test("a refused connection is ENGINE_UNHEALTHY and leaves no turn", async () => {
    const input = { ...world.input(), userId: "unreachable" };
    await moveEngine(await world.addEngine(input.userId), await takePort());
    await expect(startTurn(world.ctx, input)).rejects.toMatchObject({
      reason: "ENGINE_UNHEALTHY",
      retryAfterMs: 1_000,
    });
    await expect(getTurn(world.ctx, input)).rejects.toMatchObject({ reason: "TURN_NOT_FOUND" });
  });
});

describe("an engine that does not answer", () => {
  const START_ANSWER_MS = 10_000;
  const IDLE_MS = 600_000;

  /** A turn whose start was answered in `starting`, while its engine has the request. */
  async function openSlowTurn() {
    world.engine.onCall = () => {};
    const clock = openMovableClock();
    const { ctx } = world.openProcess({ clock, timing: { startAnswerMs: START_ANSWER_MS } });
    const input = world.input();
    const starting = startTurn(ctx, input);
    const call = await world.engine.callOf(input.request.taskId);
    clock.advance(START_ANSWER_MS);
    expect(await starting).toMatchObject({ status: "starting", created: true });
    return { ctx, input, call };
  }

  test("a connection cut before the status line is a turn that failed with an unknown outcome", async () => {
    world.engine.onCall = (call) => call.destroy();
    const input = world.input();
    expect(await startTurn(world.ctx, input)).toMatchObject({ status: "failed", created: true });
    expect((await getTurn(world.ctx, input)).end).toMatchObject({
      status: "failed",
      reason: "OUTCOME_UNKNOWN",
      engineMayContinue: true,
      lastSeq: 1,
    });
    expect(await startTurn(world.ctx, input)).toMatchObject({ status: "failed", created: false });
  });

  test("an answer that is not HTTP is an unknown outcome too", async () => {
    const server = createServer((socket) => {
      socket.on("error", () => {});
      socket.once("data", () => socket.end("220 mail.example.com ESMTP\r\n"));
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as { port: number };
    const input = { ...world.input(), userId: "no HTTP" };
    await moveEngine(await world.addEngine(input.userId), port);
    expect(await startTurn(world.ctx, input)).toMatchObject({ status: "failed" });
    expect((await getTurn(world.ctx, input)).end).toMatchObject({ reason: "OUTCOME_UNKNOWN" });
    server.close();
    await once(server, "close");
  });

  test("a slow engine makes start answer `starting`, and its stream comes later", async () => {
    const { ctx, input, call } = await openSlowTurn();
    expect(await startTurn(ctx, input)).toMatchObject({ status: "starting", created: false });
    expect(await getTurn(ctx, input)).toMatchObject({ status: "starting", end: null });
    whole(call);
    expect((await readAll(ctx, input)).end).toMatchObject({ status: "completed", lastSeq: 4 });
  });

  test("a refusal after start has answered is a recorded end", async () => {
    const { ctx, input, call } = await openSlowTurn();
    answer(409, { error: "BUSY", message: "no" })(call);
    expect((await readAll(ctx, input)).end).toMatchObject({
      status: "failed",
      reason: "ENGINE_REFUSED",
      engineError: { code: "BUSY", message: "no" },
      engineMayContinue: false,
    });
  });

  test("a status line that never comes ends in ENGINE_TIMEOUT", async () => {
    world.engine.onCall = () => {};
    const clock = openMovableClock();
    const { ctx } = world.openProcess({
      clock,
      config: { turnIdleTimeoutMs: IDLE_MS },
      timing: { startAnswerMs: 2 * IDLE_MS },
    });
    const input = world.input();
    const starting = startTurn(ctx, input);
    await world.engine.callOf(input.request.taskId);
    clock.advance(IDLE_MS);
    expect(await starting).toMatchObject({ status: "failed" });
    expect((await getTurn(ctx, input)).end).toMatchObject({
      reason: "ENGINE_TIMEOUT",
      engineMayContinue: true,
    });
  });

  test("a replica that lost its lease sends nothing", async () => {
    const process = world.openProcess();
    process.lease = false;
    const before = world.engine.calls.length;
    const input = world.input();
    await expect(startTurn(process.ctx, input)).rejects.toMatchObject({ reason: "DATABASE_UNAVAILABLE" });
    expect(world.engine.calls).toHaveLength(before);
    await expect(getTurn(process.ctx, input)).rejects.toMatchObject({ reason: "TURN_NOT_FOUND" });
  });
});

describe("a row that was written before its engine was held", () => {
  const gate = { whenBusy: "wait", deadlineMs: 1_000, reason: "ENGINE_RESTARTED" } as const;

  test("is written again when an operation changed the engine in between", async () => {
    const engine = await world.addEngine("restarted");
    const ctx = openProcessWith(async () => {
      (await world.holds.closeGate(engine.engineId, gate))[Symbol.dispose]();
      await world.database.raw`update engines set generation = 2 where id = ${engine.engineId}`;
    });
    world.engine.onCall = streamOf(completed());
    const input = { ...world.input(), userId: engine.userId };
    const { generation } = await startTurn(ctx, input);
    expect(generation).toBe(2);
    expect((await getTurn(ctx, input)).generation).toBe(generation);
    expect((await readAll(ctx, input)).end).toMatchObject({ status: "completed" });
  });

  test("is erased while a closed gate is waited for", async () => {
    const engine = await world.addEngine("gated");
    const closed = await world.holds.closeGate(engine.engineId, gate);
    const erased = Promise.withResolvers<void>();
    const { ctx } = world.openProcess({
      wrapRaw: (raw) =>
        interceptStatements(raw, "delete from turns", async (send) => {
          await send();
          erased.resolve();
        }),
    });
    world.engine.onCall = streamOf(completed());
    const input = { ...world.input(), userId: engine.userId };
    const starting = startTurn(ctx, input);
    await erased.promise;
    await expect(getTurn(ctx, input)).rejects.toMatchObject({ reason: "TURN_NOT_FOUND" });
    closed[Symbol.dispose]();
    expect(await starting).toMatchObject({ created: true });
    expect((await readAll(ctx, input)).end).toMatchObject({ status: "completed" });
  });

  test("is erased before a boot is waited for, although the engine ran when the row was written", async () => {
    const engine = await world.addEngine("booting");
    const setStatus = async (status: string) =>
      world.database.raw`update engines set status = ${status} where id = ${engine.engineId}`;
    const process = openProcessWith(async () => {
      (await world.holds.closeGate(engine.engineId, gate))[Symbol.dispose]();
      await setStatus("starting");
    });
    const input = { ...world.input(), userId: engine.userId };
    const seen: unknown[] = [];
    const waitForReconcile = async () => {
      seen.push(await getTurn(process, input).catch((error: unknown) => error));
      await setStatus("running");
      return "gone" as const;
    };
    const ctx = { ...process, reconciler: { ...process.reconciler, waitForReconcile } };
    world.engine.onCall = streamOf(completed());
    expect(await startTurn(ctx, input)).toMatchObject({ created: true });
    expect(seen).toEqual([expect.objectContaining({ reason: "TURN_NOT_FOUND" })]);
    expect((await readAll(ctx, input)).end).toMatchObject({ status: "completed" });
  });
});

test("an engine whose volume is over its limit gets no new turn, and gets the same one once there is room", async () => {
  world.engine.onCall = whole;
  const { ctx } = world.openProcess();
  const input = world.input();
  const before = world.engine.calls.length;
  const engineId = world.engines[0]?.engineId ?? "";
  ctx.fullVolumes.replace(new Map([[engineId, { usedMb: 300, limitMb: 200 }]]));
  await expect(startTurn(ctx, input)).rejects.toMatchObject({
    reason: "QUOTA_EXCEEDED",
    message: expect.stringContaining("holds 300 MiB and may hold 200"),
  });
  expect(world.engine.calls.length).toBe(before);
  ctx.fullVolumes.replace(new Map());
  expect(await startTurn(ctx, input)).toMatchObject({ turnId: input.turnId, created: true });
});
