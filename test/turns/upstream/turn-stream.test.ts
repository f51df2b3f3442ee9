import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { cancelTurn } from "../../../server/turns/cancel-turn.ts";
import { getTurn } from "../../../server/turns/read/get-turn.ts";
import { startTurn } from "../../../server/turns/start/start-turn.ts";
import { completed, delta, sse, started, streamOf } from "../engine-double.ts";
import { openMovableClock } from "../movable-clock.ts";
import { openTurnWorld, readAll, startAndRead, seqsOf, silentLog, type TurnWorld } from "../turn-world.ts";

let world: TurnWorld;
beforeAll(async () => {
  world = await openTurnWorld();
});
afterAll(async () => world[Symbol.asyncDispose]());

const lifecycle = (data: string) => `event: thread_lifecycle\ndata: ${data}\n\n`;

/** Expects that a reader gets the same from memory and afterwards from the log. */
async function relay(...pieces: (string | Buffer)[]) {
  world.engine.onCall = streamOf(...pieces);
  const input = world.input();
  const live = await startAndRead(world, input);
  const logged = await readAll(world.openProcess().ctx, input);
  expect(logged.events).toEqual(live.events);
  expect(logged.end).toEqual(live.end);
  return live;
}

describe("parsing", () => {
  test("events come in order, numbered from 1, and the end comes after them", async () => {
    const read = await relay(started(), delta("a"), delta("b"), completed());
    expect(read.events.map(({ seq, type }) => [seq, type])).toEqual([
      [1, "thread_lifecycle"],
      [2, "text_delta"],
      [3, "text_delta"],
      [4, "thread_lifecycle"],
    ]);
    expect(read.end).toEqual({
      status: "completed",
      reason: null,
      message: null,
      engineError: null,
      lastSeq: 5,
      engineMayContinue: false,
    });
    expect(new Date(read.events[0]?.at ?? "").toISOString()).toBe(read.events[0]?.at);
  });

  test.each([
    ["line feeds", "event: a\ndata: 1\n\n"],
    ["carriage returns", "event: a\rdata: 1\r\r"],
    ["both", "event: a\r\ndata: 1\r\n\r\n"],
    ["a byte-order mark", "\ufeffevent: a\ndata: 1\n\n"],
    ["comments", ": hi\n\nevent: a\n:\ndata: 1\n: x\n\n"],
    ["ids and retries", "id: 9\nretry: 5\nevent: a\ndata: 1\nid: \n\n"],
    ["no space", "event:a\ndata:1\n\n"],
    ["unknown fields", "foo: bar\nevent: a\nfoo\ndata: 1\n\n"],
  ])("a stream with %s is parsed", async (_name, text) => {
    const read = await relay(text, completed());
    expect(read.events[0]).toMatchObject({ seq: 1, type: "a", data: 1 });
    expect(read.events).toHaveLength(2);
  });

  test("data on several lines is one text, an event without a type is a message, and data that is not JSON is a string", async () => {
    const read = await relay(
      'data: {"a":\ndata: 1}\n\n',
      "data: not json\ndata: at all\n\n",
      "event: x\ndata\n\n",
      "event: nothing\n\n",
      completed(),
    );
    expect(read.events.map(({ type, data }) => [type, data]).slice(0, -1)).toEqual([
      ["message", { a: 1 }],
      ["message", "not json\nat all"],
      ["x", ""],
    ]);
  });

  test("a stream may be cut anywhere, even inside a character", async () => {
    const bytes = Buffer.from(`${delta("ä€😀")}${sse("ünï", { "😀": ["ß"] })}${completed()}`);
    const pieces = Array.from(bytes, (byte) => Buffer.from([byte]));
    world.engine.onCall = (call) => {
      call.open();
      call.response.socket?.setNoDelay(true);
      void (async () => {
        for (const piece of pieces) await call.write(piece);
        call.end();
      })();
    };
    const read = await startAndRead(world);
    expect(read.events.map(({ type, data }) => [type, data]).slice(0, -1)).toEqual([
      ["text_delta", { text: "ä€😀" }],
      ["ünï", { "😀": ["ß"] }],
    ]);
  });

  test("NUL, lone surrogates, separators and control characters pass the log unchanged", async () => {
    const nasty = '{"a":"\\u0000","b":"\\ud800","c":"\\u001e\\u2028","__proto__":{"x":1}}';
    const read = await relay(
      `event: a\u0000b\u001e"\ndata: ${nasty}\n\n`,
      "data: raw\u0000\u001e\u0007\n\n",
      completed(),
    );
    expect(read.events[0]?.type).toBe('a\u0000b\u001e"');
    expect(JSON.stringify(read.events[0]?.data)).toBe(JSON.stringify(JSON.parse(nasty)));
    expect(read.events[1]?.data).toBe("raw\u0000\u001e\u0007");
  });

  test("JSON that is nested too deeply to be serialized again is delivered as its text", async () => {
    const deep = `${"[".repeat(100_000)}${"]".repeat(100_000)}`;
    const read = await relay(`data: ${deep}\n\n`, completed());
    expect(read.events[0]?.data).toBe(deep);
  });

  test("invalid UTF-8 is replaced, not fatal", async () => {
    const read = await relay(Buffer.from([...Buffer.from("data: "), 0xff, 0xfe, 10, 10]), completed());
    expect(read.events[0]?.data).toBe("\ufffd\ufffd");
  });
});

describe("ends", () => {
  test("an error event fails the turn with the engine's error", async () => {
    const read = await relay(delta("a"), sse("error", { error: "BOOM", message: "it broke", details: [1] }));
    expect(read.end).toMatchObject({
      status: "failed",
      reason: "ENGINE_ERROR",
      engineError: { code: "BOOM", message: "it broke", details: [1] },
      engineMayContinue: false,
      lastSeq: 3,
    });
  });

  test("lifecycle errored fails the turn too, even without a code or a message", async () => {
    const errored = await relay(sse("thread_lifecycle", { phase: "errored", error: "E", message: "m" }));
    expect(errored.end).toMatchObject({ reason: "ENGINE_ERROR", engineError: { code: "E", message: "m" } });
    const bare = await relay("event: error\ndata: oops\n\n");
    expect(bare.end).toMatchObject({ reason: "ENGINE_ERROR", engineError: { code: "UNSPECIFIED" } });
  });

  test.each([
    ["plain", (key: string) => key],
    ["escaped", (key: string) => key.replaceAll(/./g, (sign) => `\\u00${sign.charCodeAt(0).toString(16)}`)],
    ["in JSON in JSON", (key: string) => String.raw`{\"key\":\"${key}\"}`],
    ["in base64", (key: string) => Buffer.from(key).toString("base64")],
  ])(
    "an engine key that is %s in an error event is in no end, and the event stays as it was sent",
    async (_how, encode) => {
      let key = "";
      let data = "";
      world.engine.onCall = (call) => {
        key = String(call.headers["x-engine-key"]);
        const form = encode(key);
        data = `{"error":"${form}","message":"no ${form}","details":{"${form}":"${form}"}}`;
        streamOf(started(), `event: error\ndata: ${data}\n\n`)(call);
      };
      const input = world.input();
      const { events, end } = await startAndRead(world, input);
      expect(events.at(-1)?.data).toEqual(JSON.parse(data));
      const { end: recorded } = await getTurn(world.ctx, input);
      expect(end).toMatchObject({
        reason: "ENGINE_ERROR",
        engineError: { code: expect.stringContaining("[hidden]") },
      });
      for (const words of [JSON.stringify(end), JSON.stringify(recorded)]) {
        expect(words).not.toContain(key);
        expect(words).not.toContain(encode(key));
      }
    },
  );

  test("events after the terminal event are dropped", async () => {
    const read = await relay(
      delta("a"),
      completed(),
      delta("late"),
      sse("error", { error: "LATE", message: "" }),
    );
    expect(seqsOf(read)).toEqual([1, 2]);
    expect(read.end).toMatchObject({ status: "completed", lastSeq: 3 });
  });

  test("a turn ends although its engine does not close the stream after the terminal event", async () => {
    world.engine.onCall = (call) => {
      call.open();
      void call.write(completed());
    };
    const read = await startAndRead(world);
    expect(read.end).toMatchObject({ status: "completed" });
    await expect.poll(() => world.engine.calls.at(-1)?.isClosed).toBe(true);
  });

  test("a stream that does not begin with started is a warning in the log, and the turn goes on", async () => {
    const warn = vi.spyOn(silentLog, "warn");
    try {
      const { end } = await relay(delta("a"), completed());
      expect(end).toMatchObject({ status: "completed" });
      expect(warn).toHaveBeenCalledWith(expect.anything(), expect.stringContaining('"phase": "started"'));
      warn.mockClear();
      await relay(started(), completed());
      expect(warn).not.toHaveBeenCalled();
    } finally {
      warn.mockRestore();
    }
  });

  test.each([
    [
      "no last event",
      [started(), delta("a")],
      /the last of 2 events was text_delta; it must end with .*"completed"/,
    ],
    ["no text", [], /the stream was empty; it must end/],
    ["no event", ["hello\n"], /no event came .*data: <json>/],
    [
      "a last event of invalid JSON",
      [started(), lifecycle("{'phase': 'completed'}")],
      /no JSON object: \{'phase': 'completed'\}/,
    ],
    [
      "a last event of an unknown phase",
      [started(), lifecycle('{"phase":"done"}')],
      /unknown phase: \{"phase":"done"\}/,
    ],
    ["no empty line at its end", [started(), completed().trimEnd()], /an empty line ends each event/],
    [
      "an untyped last event",
      [started(), 'data: {"phase":"completed"}\n\n'],
      /without an "event:" line is a message/,
    ],
  ])(
    "a stream with %s ends with a message that says what came and what the contract says",
    async (_what, pieces, words) => {
      const read = await relay(...pieces);
      expect(read.end).toMatchObject({ reason: "ENGINE_CLOSED", message: expect.stringMatching(words) });
      expect(read.end?.message).toContain("thread_lifecycle");
    },
  );

  test("a stream that ends without a terminal event is ENGINE_CLOSED, and its engine is done", async () => {
    const read = await relay(started(), delta("a"));
    expect(read.end).toMatchObject({
      status: "failed",
      reason: "ENGINE_CLOSED",
      engineMayContinue: false,
      lastSeq: 3,
    });
  });

  test("a stream that breaks is ENGINE_CLOSED, and its engine may go on", async () => {
    world.engine.onCall = (call) => {
      call.open();
      void call.write(delta("a")).then(() => call.destroy());
    };
    const read = await startAndRead(world);
    expect(read.end).toMatchObject({ status: "failed", reason: "ENGINE_CLOSED", engineMayContinue: true });
    expect(read.events).toHaveLength(1);
  });

  test.each([
    ["its generation moved", { generation: 2 }, "ENGINE_RESTARTED"],
    ["it is starting again", { status: "starting" }, "ENGINE_RESTARTED"],
    ["it failed", { status: "failed" }, "ENGINE_RESTARTED"],
    ["it was stopped", { status: "stopped" }, "ENGINE_STOPPED"],
  ])("a stream that breaks because the process is gone is interrupted: %s", async (_name, change, reason) => {
    const user = `user ${reason} ${JSON.stringify(change)}`;
    const engine = await world.addEngine(user);
    world.engine.onCall = (call) => {
      call.open();
      void (async () => {
        await call.write(delta("a"));
        // The runtime notices after the stream broke.
        call.response.on("close", () => setTimeout(() => Object.assign(engine, change), 50));
        call.destroy();
      })();
    };
    const read = await startAndRead(world, { ...world.input(), userId: user });
    expect(read.end).toMatchObject({ status: "interrupted", reason, engineMayContinue: false });
  });

  test.each(["ENGINE_STOPPED", "ENGINE_RESTARTED"] as const)(
    "an operation that interrupts holders ends the turn with %s",
    async (reason) => {
      const engine = await world.addEngine(`interrupted ${reason}`);
      world.engine.onCall = (call) => {
        call.open();
        void call.write(delta("a"));
      };
      const input = { ...world.input(), userId: engine.userId };
      await startTurn(world.ctx, input);
      const gate = await world.holds.closeGate(engine.engineId, {
        whenBusy: "interrupt",
        deadlineMs: 0,
        reason,
      });
      gate[Symbol.dispose]();
      expect((await readAll(world.ctx, input)).end).toMatchObject({ status: "interrupted", reason });
      expect(world.holds.count(engine.engineId)).toBe(0);
    },
  );

  test("the engine is held while the turn is live, and released after it", async () => {
    const engine = await world.addEngine("held");
    world.engine.onCall = (call) => call.open();
    const input = { ...world.input(), userId: "held" };
    await startTurn(world.ctx, input);
    expect(world.holds.count(engine.engineId)).toBe(1);
    const call = world.engine.calls.at(-1);
    await call?.write(completed());
    call?.end();
    await readAll(world.ctx, input);
    expect(world.holds.count(engine.engineId)).toBe(0);
  });
});

describe("limits", () => {
  const IDLE_MS = 600_000;

  function openImpatientProcess() {
    const clock = openMovableClock();
    return { clock, ctx: world.openProcess({ clock, config: { turnIdleTimeoutMs: IDLE_MS } }).ctx };
  }

  test("an event over the limit ends the turn, and earlier events stay", async () => {
    const { ctx } = world.openProcess({ config: { eventMaxBytes: 1_000 } });
    for (const big of [
      `data: ${"x".repeat(1_001)}\n\n`,
      `data: ${"ä".repeat(501)}\n\n`,
      `data: ${"x".repeat(600)}\ndata: ${"x".repeat(600)}\n\n`,
      `data: ${"x".repeat(100_000)}`,
      `event: ${"x".repeat(1_001)}\ndata: 1\n\n`,
    ]) {
      world.engine.onCall = (call) => {
        call.open();
        void call.write(delta("a")).then(() => call.write(big));
      };
      const input = world.input();
      await startTurn(ctx, input);
      const read = await readAll(ctx, input);
      expect(seqsOf(read)).toEqual([1]);
      expect(read.end).toMatchObject({
        status: "failed",
        reason: "EVENT_TOO_LARGE",
        engineMayContinue: true,
        lastSeq: 2,
      });
      await expect.poll(() => world.engine.calls.at(-1)?.isClosed).toBe(true);
    }
  });

  test("an event of exactly the limit passes", async () => {
    const { ctx } = world.openProcess({ config: { eventMaxBytes: 1_000 } });
    world.engine.onCall = streamOf(`data: ${"x".repeat(993)}\n\n`, completed());
    const input = world.input();
    await startTurn(ctx, input);
    expect((await readAll(ctx, input)).end).toMatchObject({ status: "completed" });
  });

  test("a turn over its limit ends, and comments count", async () => {
    const { ctx } = world.openProcess({ config: { turnMaxBytes: 10_000 } });
    for (const piece of [delta("x".repeat(500)), `: ${"x".repeat(500)}\n\n`]) {
      world.engine.onCall = (call) => {
        call.open();
        for (let index = 0; index < 100; index += 1) call.response.write(piece);
      };
      const input = world.input();
      await startTurn(ctx, input);
      expect((await readAll(ctx, input)).end).toMatchObject({ status: "failed", reason: "TURN_TOO_LARGE" });
    }
  });

  test("an engine that is silent for too long is ENGINE_TIMEOUT, and any byte ends the silence", async () => {
    const { ctx, clock } = openImpatientProcess();
    world.engine.onCall = (call) => call.open();
    const chatty = world.input();
    const silent = world.input();
    await startTurn(ctx, chatty);
    await startTurn(ctx, silent);
    const call = await world.engine.callOf(chatty.request.taskId);
    await (await world.engine.callOf(silent.request.taskId)).write(delta("last"));
    await readAll(ctx, silent, { stop: () => true });
    clock.advance(IDLE_MS / 2);
    await call.write(":");
    await expect.poll(() => ctx.turns.find(chatty.productId, chatty.turnId)?.bytes).toBe(1);
    clock.advance(IDLE_MS / 2);
    const read = await readAll(ctx, silent);
    expect(read.events).toHaveLength(1);
    expect(read.end).toMatchObject({ status: "failed", reason: "ENGINE_TIMEOUT", engineMayContinue: true });
    expect(await getTurn(ctx, chatty)).toMatchObject({ status: "streaming" });
    await call.write(`\n${completed()}`);
    expect((await readAll(ctx, chatty)).end).toMatchObject({ status: "completed" });
  });

  test("an engine that waits for a person may be silent", async () => {
    const { ctx, clock } = openImpatientProcess();
    world.engine.onCall = (call) => {
      call.open();
      void call.write(
        sse("hitl_request", { request_id: "a" }) +
          sse("hitl_request", { request_id: "b" }) +
          sse("hitl_resolved", { request_id: "a" }),
      );
    };
    const asking = world.input();
    await startTurn(ctx, asking);
    const call = await world.engine.callOf(asking.request.taskId);
    await readAll(ctx, asking, { stop: (read) => read.events.length === 3 });
    clock.advance(IDLE_MS);
    clock.advance(IDLE_MS);
    expect(await getTurn(ctx, asking)).toMatchObject({ status: "streaming" });
    await call.write(sse("hitl_resolved", { request_id: "b" }));
    await readAll(ctx, asking, { afterSeq: 3, stop: () => true });
    clock.advance(IDLE_MS);
    expect((await readAll(ctx, asking)).end).toMatchObject({ reason: "ENGINE_TIMEOUT", lastSeq: 5 });
  });
});

describe("a turn without readers", () => {
  test("is read to its end, which its row has", async () => {
    world.engine.onCall = streamOf(
      started(),
      ...Array.from({ length: 3_000 }, (_, index) => delta(`${index}`)),
      completed(),
    );
    const input = world.input();
    await startTurn(world.ctx, input);
    await expect.poll(async () => (await getTurn(world.ctx, input)).status).toBe("completed");
    const turn = await getTurn(world.ctx, input);
    expect(turn).toMatchObject({
      turnId: input.turnId,
      userId: "ann",
      taskId: input.request.taskId,
      generation: 1,
      lastSeq: 3_003,
      end: { lastSeq: 3_003 },
    });
    expect(turn.bytes).toBeGreaterThan(3_000 * 20);
    expect(Date.parse(turn.endedAt ?? "")).toBeGreaterThanOrEqual(Date.parse(turn.startedAt));
    const read = await readAll(world.ctx, input);
    expect(seqsOf(read)).toEqual(Array.from({ length: 3_002 }, (_, index) => index + 1));
    expect(Math.max(...read.batches.map((batch) => batch.events.length))).toBeLessThanOrEqual(256);
    expect(read.batches.length).toBeLessThan(20);
  });

  test("of many megabytes is read from the log completely, in bounded batches", async () => {
    const text = "x".repeat(100_000);
    world.engine.onCall = streamOf(...Array.from({ length: 100 }, () => delta(text)), completed());
    const read = await startAndRead(world);
    expect(seqsOf(read)).toEqual(Array.from({ length: 101 }, (_, index) => index + 1));
    for (const batch of read.batches) expect(JSON.stringify(batch).length).toBeLessThan(400_000);
    expect(
      await cancelTurn(world.ctx, { productId: world.productId, turnId: (await lastTurnId()) ?? "" }),
    ).toMatchObject({
      status: "completed",
    });
  });
});

async function lastTurnId(): Promise<string | undefined> {
  const [row] = await world.database.raw<
    { id: string }[]
  >`select id from turns order by started_at desc limit 1`;
  return row?.id;
}
