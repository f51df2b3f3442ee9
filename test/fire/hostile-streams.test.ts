import { randomUUID } from "node:crypto";
import * as fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { systemClock } from "../../server/time/clock.ts";
import { IdleWatchdog } from "../../server/turns/upstream/idle-watchdog.ts";
import { LiveTurn } from "../../server/turns/model/live-turn.ts";
import { UpstreamReader } from "../../server/turns/upstream/upstream-reader.ts";
import type { TurnEvent } from "../../server/turns/read/turn-batch.ts";
import type { TurnEnd } from "../../server/turns/model/turn-end.ts";
import { getTurn } from "../../server/turns/read/get-turn.ts";
import { startTurn, type StartTurnInput } from "../../server/turns/start/start-turn.ts";

import { type Call, completed, delta, sse, started, streamOf } from "../turns/engine-double.ts";
import { openTurnWorld, type Read, readAll, type TurnWorld, type WorldContext } from "../turns/turn-world.ts";

const EVENT_MAX_BYTES = 64 * 1024;
const TURN_MAX_BYTES = 4 * 1024 * 1024;
/** Of the engines that are silent; all others are waited for. */
const IDLE_MS = 2_000;

let world: TurnWorld;
let impatient: WorldContext;
beforeAll(async () => {
  world = await openTurnWorld({
    timing: { startAnswerMs: 100 },
    config: { eventMaxBytes: EVENT_MAX_BYTES, turnMaxBytes: TURN_MAX_BYTES },
  });
});
beforeAll(() => {
  impatient = world.openProcess({ config: { turnIdleTimeoutMs: IDLE_MS } }).ctx;
});
afterAll(async () => world[Symbol.asyncDispose]());

/** Writes each piece by itself, so that each is a chunk of its own. */
function pieceByPiece(pieces: Iterable<Buffer>): (call: Call) => void {
  return (call) => {
    call.open();
    call.response.socket?.setNoDelay(true);
    void (async () => {
      for (const piece of pieces) await call.write(piece);
      call.end();
    })();
  };
}
const byteByByte = (text: string) =>
  pieceByPiece(Array.from(Buffer.from(text), (byte) => Buffer.from([byte])));

/** Writes for as long as it is let, and counts how much that was. */
function flood(piece: string, first = ""): { behaviour: (call: Call) => void; sent: () => number } {
  let sent = 0;
  const behaviour = (call: Call) => {
    call.open();
    call.response.write(first);
    void (async () => {
      while (!call.isClosed) {
        await call.write(piece);
        sent += piece.length;
      }
    })();
  };
  return { behaviour, sent: () => sent };
}

const silent = (call: Call) => void call;
const answer = (status: number, body: string, type: string) => (call: Call) => {
  call.response.writeHead(status, { "content-type": type }).end(body);
};
const refusal = JSON.stringify({ error: "BUSY", message: "not now" });
/** Sends these bytes in the place of an HTTP answer. */
const rawly = (bytes: string) => (call: Call) => {
  call.response.socket?.end(bytes);
};
const cutAfter = (text: string) => (call: Call) => {
  call.open();
  void call.write(text).then(() => call.response.socket?.destroy());
};
const reset = (text: string) => (call: Call) => {
  call.open();
  void call.write(text).then(() => call.response.socket?.resetAndDestroy());
};
const done = completed();
const INTERIM = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
const WHOLE = `HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\nevent: a\ndata: 1\n\n${done}`;
const CHUNKED = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const toChunk = (text: string) => `${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n`;
const withTrailers = (text: string) => (call: Call) => {
  call.response.writeHead(200, { "content-type": "text/event-stream", trailer: "x-sum, event" });
  call.response.write(text);
  call.response.addTrailers({ "x-sum": "1", event: "thread_lifecycle" });
  call.response.end();
};
const fiveThousand = Array.from({ length: 5_000 }, (_, index) => delta(`${index}`)).join("");
const exactly = `data: ${"x".repeat(EVENT_MAX_BYTES - "message".length)}\n\n`;
const oneMore = `data: ${"x".repeat(EVENT_MAX_BYTES - "message".length + 1)}\n\n`;

type Seen = [type: string, data: unknown];
const FIVE_THOUSAND = Array.from({ length: 5_000 }, (_, index): Seen => ["text_delta", { text: `${index}` }]);
const ONE: Seen[] = [["a", { n: 1 }]];
const COMPLETED: Partial<TurnEnd> = { status: "completed", reason: null, engineMayContinue: false };
const CLOSED: Partial<TurnEnd> = { status: "failed", reason: "ENGINE_CLOSED", engineMayContinue: false };
const BROKEN: Partial<TurnEnd> = { ...CLOSED, engineMayContinue: true };
const TOO_LARGE: Partial<TurnEnd> = { status: "failed", reason: "EVENT_TOO_LARGE", engineMayContinue: true };
const TURN_TOO_LARGE: Partial<TurnEnd> = {
  status: "failed",
  reason: "TURN_TOO_LARGE",
  engineMayContinue: true,
};
const OUTCOME_UNKNOWN: Partial<TurnEnd> = {
  status: "failed",
  reason: "OUTCOME_UNKNOWN",
  engineMayContinue: true,
};
const TIMEOUT: Partial<TurnEnd> = { status: "failed", reason: "ENGINE_TIMEOUT", engineMayContinue: true };

/** What the engine does, how the turn ends, and what its readers see of it but the lifecycle's events. */
const TABLE: [string, (call: Call) => void, Partial<TurnEnd>, Seen[]][] = [
  [
    "a chunk that ends inside of a character",
    pieceByPiece(splitAt(`event: ä€😀\ndata: "ä€😀"\n\n${done}`, 8, 10, 13, 25, 28)),
    COMPLETED,
    [["ä€😀", "ä€😀"]],
  ],
  ["one byte at a time", byteByByte(`event: a\r\ndata: {"n":\r\ndata: 1}\r\n\r\n${done}`), COMPLETED, ONE],
  ["CRLF", streamOf(`event: a\r\ndata: {"n":1}\r\n\r\n`, done), COMPLETED, ONE],
  ["CR", streamOf(`event: a\rdata: {"n":1}\r\r`, done), COMPLETED, ONE],
  ["all line endings at once", streamOf(`event: a\rdata: {"n":\ndata: 1}\r\n\r\n`, done), COMPLETED, ONE],
  [
    "CR and LF in two chunks",
    pieceByPiece(splitAt(`event: a\r\ndata: {"n":1}\r\n\r\n${done}`, 9, 24, 26)),
    COMPLETED,
    ONE,
  ],
  ["comments", streamOf(`: hi\n:\nevent: a\n: x\ndata: {"n":1}\n:\n\n:\n\n`, done), COMPLETED, ONE],
  ["a byte-order mark", streamOf(`\ufeffevent: a\ndata: {"n":1}\n\n`, done), COMPLETED, ONE],
  [
    "a byte-order mark in three chunks",
    pieceByPiece(splitAt(`\ufeffevent: a\ndata: {"n":1}\n\n${done}`, 1, 2)),
    COMPLETED,
    ONE,
  ],
  [
    "data over several lines",
    streamOf("data: a\ndata:\ndata: b\n\n", done),
    COMPLETED,
    [["message", "a\n\nb"]],
  ],
  ["no space after the colon", streamOf(`event:a\ndata:{"n":1}\n\n`, done), COMPLETED, ONE],
  ["two spaces after the colon", streamOf("data:  x\n\n", done), COMPLETED, [["message", " x"]]],
  ["no colon at all", streamOf("event\ndata\n\n", done), COMPLETED, [["message", ""]]],
  ["no type", streamOf(`data: {"n":1}\n\n`, done), COMPLETED, [["message", { n: 1 }]]],
  ["a type twice", streamOf(`event: b\nevent: a\ndata: {"n":1}\n\n`, done), COMPLETED, ONE],
  ["no data", streamOf("event: a\n\n", done), COMPLETED, []],
  [
    "what is not JSON",
    streamOf("data: {\n\ndata: NaN\n\n", done),
    COMPLETED,
    [
      ["message", "{"],
      ["message", "NaN"],
    ],
  ],
  [
    "id and retry",
    streamOf(`id: 9\nretry: 1\nevent: a\ndata: {"n":1}\n\nid\nretry: x\n\n`, done),
    COMPLETED,
    ONE,
  ],
  [
    "names of our own",
    streamOf(`event: enginehouse.end\ndata: {"seq":9}\n\n`, done),
    COMPLETED,
    [["enginehouse.end", { seq: 9 }]],
  ],
  [
    "a prototype",
    streamOf(`event: __proto__\ndata: {"__proto__":{"polluted":1}}\n\n`, done),
    COMPLETED,
    [["__proto__", JSON.parse('{"__proto__":{"polluted":1}}')]],
  ],
  ["no last blank line", streamOf(`event: a\ndata: {"n":1}\n\nevent: a\ndata: 2`), CLOSED, ONE],
  [
    "a last word without its blank line",
    streamOf(delta("a"), done.trimEnd()),
    CLOSED,
    [["text_delta", { text: "a" }]],
  ],
  ["nothing but an end", streamOf(), CLOSED, []],
  [
    "an event of the largest size",
    streamOf(exactly, done),
    COMPLETED,
    [["message", "x".repeat(EVENT_MAX_BYTES - 7)]],
  ],
  [
    "an event of one byte more",
    streamOf(delta("a"), oneMore, done),
    TOO_LARGE,
    [["text_delta", { text: "a" }]],
  ],
  ["a line that never ends", flood("x".repeat(10_000), "data: ").behaviour, TOO_LARGE, []],
  ["an event that never ends", flood("data: x\n".repeat(1_000)).behaviour, TOO_LARGE, []],
  ["a field name that never ends", flood("x".repeat(10_000)).behaviour, TURN_TOO_LARGE, []],
  [
    "a line that never ends after its last word",
    flood("x".repeat(10_000), `${done}data: `).behaviour,
    COMPLETED,
    [],
  ],
  [
    "an event that never ends after its last word",
    flood("data: x\n".repeat(1_000), done).behaviour,
    COMPLETED,
    [],
  ],
  ["five thousand events in a chunk", streamOf(fiveThousand + done), COMPLETED, FIVE_THOUSAND],
  ["comments that never end", flood(": x\n".repeat(2_000)).behaviour, TURN_TOO_LARGE, []],
  ["a close at once", cutAfter(""), BROKEN, []],
  [
    "a close in the middle of an event",
    cutAfter(`${delta("a")}event: text_del`),
    BROKEN,
    [["text_delta", { text: "a" }]],
  ],
  ["a reset", reset(delta("a")), BROKEN, [["text_delta", { text: "a" }]]],
  ["a reset before any answer", (call) => call.response.socket?.resetAndDestroy(), OUTCOME_UNKNOWN, []],
  ["interim answers without end", rawly(`${INTERIM.repeat(10_000)}${WHOLE}`), OUTCOME_UNKNOWN, []],
  ["some interim answers", rawly(`${INTERIM.repeat(50)}${WHOLE}`), COMPLETED, [["a", 1]]],
  ["half a status line", rawly("HTTP/1.1 20"), OUTCOME_UNKNOWN, []],
  [
    "a chunk of no length",
    rawly("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"),
    BROKEN,
    [],
  ],
  [
    "fewer bytes than it said",
    rawly("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 99\r\n\r\ndata: 1\n\n"),
    BROKEN,
    [["message", 1]],
  ],
  ["trailers", withTrailers(`event: a\ndata: {"n":1}\n\n${done}`), COMPLETED, ONE],
  ["trailers in the place of its last word", withTrailers(`event: a\ndata: {"n":1}\n\n`), CLOSED, ONE],
  [
    "trailers that never end",
    rawly(`${CHUNKED}${toChunk(`event: a\ndata: {"n":1}\n\n`)}0\r\n${"x: y\r\n".repeat(100_000)}`),
    BROKEN,
    ONE,
  ],
  [
    "trailers that never end after its last word",
    rawly(`${CHUNKED}${toChunk(done)}0\r\n${"x: y\r\n".repeat(100_000)}`),
    COMPLETED,
    [],
  ],
  [
    "more than its last chunk",
    rawly(`${CHUNKED}${toChunk(done)}0\r\n\r\n${toChunk(delta("late"))}`),
    COMPLETED,
    [],
  ],
  ["an end before its start", streamOf(done, started(), delta("late")), COMPLETED, []],
  [
    "an end twice",
    streamOf(delta("a"), done, done, sse("error", { error: "LATE", message: "" })),
    COMPLETED,
    [["text_delta", { text: "a" }]],
  ],
  [
    "a failure, then an end",
    streamOf(sse("error", { error: "FIRST", message: "one" }), done, delta("late")),
    { status: "failed", reason: "ENGINE_ERROR", engineError: { code: "FIRST", message: "one" } },
    [["error", { error: "FIRST", message: "one" }]],
  ],
  [
    "an error event",
    streamOf(sse("error", { error: "BOOM", message: "it broke" })),
    { status: "failed", reason: "ENGINE_ERROR", engineMayContinue: false },
    [["error", { error: "BOOM", message: "it broke" }]],
  ],
  [
    "an error event and silence",
    (call) => (call.open(), void call.write("event: error\ndata: x\n\n")),
    { status: "failed", reason: "ENGINE_ERROR" },
    [["error", "x"]],
  ],
  [
    "a last word that is not alone",
    streamOf(done, done, delta("late"), "x".repeat(1_000_000)),
    COMPLETED,
    [],
  ],
  [
    "a status line that takes longer than the caller waits",
    (call) => void setTimeout(() => streamOf(`event: a\ndata: {"n":1}\n\n`, done)(call), 200),
    COMPLETED,
    ONE,
  ],
  [
    "a 409 that takes longer than the caller waits",
    (call) => void setTimeout(() => answer(409, refusal, "application/json")(call), 200),
    { status: "failed", reason: "ENGINE_REFUSED", engineMayContinue: false },
    [],
  ],
  ["a status line that never comes", silent, TIMEOUT, []],
  ["silence", (call) => (call.open(), void call.write(delta("a"))), TIMEOUT, [["text_delta", { text: "a" }]]],
];

function* splitAt(text: string | Buffer, ...places: number[]): Generator<Buffer> {
  const bytes = Buffer.from(text);
  let from = 0;
  for (const place of [...places, bytes.length]) {
    yield bytes.subarray(from, place);
    from = place;
  }
}

const seen = (events: TurnEvent[]): Seen[] =>
  events.filter(({ type }) => type !== "thread_lifecycle").map(({ type, data }) => [type, data]);

async function runAs(behaviour: (call: Call) => void, input: StartTurnInput, ctx = world.ctx): Promise<Read> {
  world.engine.onCall = behaviour;
  await startTurn(ctx, input);
  return readAll(ctx, input);
}

/** Of the same task: whatever its engine did, it can be talked to. */
async function expectNextTurnToWork({ request }: StartTurnInput): Promise<void> {
  const read = await runAs(streamOf(started(), delta("fine"), done), { ...world.input(), request });
  expect(seen(read.events)).toEqual([["text_delta", { text: "fine" }]]);
  expect(read.end).toMatchObject(COMPLETED);
}

describe("an engine that sends", () => {
  test.each(TABLE)("%s: the turn ends as typed, and the next one works", async (...row) => {
    const [, behaviour, end, events] = row;
    const input = world.input();
    const read = await runAs(behaviour, input, end === TIMEOUT ? impatient : world.ctx);
    expect(seen(read.events)).toEqual(events);
    expect(read.end).toMatchObject({ ...end, lastSeq: read.events.length + 1 });
    const logged = await readAll(world.openProcess().ctx, input);
    expect(logged.events).toEqual(read.events);
    expect(logged.end).toEqual(read.end);
    await expectNextTurnToWork(input);
  });
});

test("events of a few bytes count as what the log makes of them", async () => {
  const input = world.input();
  const small = "data\n\n";
  const read = await runAs(streamOf(small.repeat(TURN_MAX_BYTES / small.length / 2)), input);
  expect(read.end).toMatchObject(TURN_TOO_LARGE);
  const { bytes } = await getTurn(world.ctx, input);
  expect(bytes).toBeLessThan(TURN_MAX_BYTES);
});

test("of several ends the first one counts, and no reader sees anything after it", async () => {
  const read = await runAs(streamOf(started(), done, done, delta("late"), started(), done), world.input());
  expect(read.events.map(({ type, data }) => [type, (data as { phase: string }).phase])).toEqual([
    ["thread_lifecycle", "started"],
    ["thread_lifecycle", "completed"],
  ]);
  expect(read.end).toMatchObject({ ...COMPLETED, lastSeq: 3 });
});

test("100,000 events in one chunk arrive in order, from memory and from the log", async () => {
  const COUNT = 100_000;
  const { ctx } = world.openProcess({ config: { turnMaxBytes: 64 * 1024 * 1024 } });
  const chunk = Array.from({ length: COUNT }, (_, index) => `data: ${index}\n\n`).join("");
  const input = world.input();
  const read = await runAs(streamOf(chunk + done), input, ctx);
  for (const { events, end } of [read, await readAll(world.openProcess().ctx, input)]) {
    expect(events.length).toBe(COUNT + 1);
    expect(
      events.findIndex(({ seq, data }, index) => seq !== index + 1 || (data !== index && index < COUNT)),
    ).toBe(-1);
    expect(end).toMatchObject({ ...COMPLETED, lastSeq: COUNT + 2 });
  }
});

describe("an engine that never ends is cut off soon after its limit", () => {
  const SOCKET_BUFFERS = 16 * 1024 * 1024;
  test.each([
    ["a line", "x".repeat(50_000), "data: ", EVENT_MAX_BYTES],
    ["an event", "data: x\n".repeat(5_000), "", EVENT_MAX_BYTES],
    ["a comment", "x".repeat(50_000), ":", TURN_MAX_BYTES],
    ["events", delta("x".repeat(1_000)), "", TURN_MAX_BYTES],
  ])("%s", async (_what, piece, first, limit) => {
    const { behaviour, sent } = flood(piece, first);
    await runAs(behaviour, world.input());
    await expect.poll(() => world.engine.calls.at(-1)?.isClosed).toBe(true);
    expect(sent()).toBeLessThan(limit + SOCKET_BUFFERS);
  });
});

test("a stream that broke is not taken for a silent one, however long its end is looked into", async () => {
  const timing = { brokenMs: 1.5 * IDLE_MS };
  const { ctx } = world.openProcess({ config: { turnIdleTimeoutMs: IDLE_MS }, timing });
  const read = await runAs(cutAfter(delta("a")), world.input(), ctx);
  expect(read.end).toMatchObject(BROKEN);
});

test("after the last word not even a line that is too long, in many pieces, can do harm", async () => {
  const { productId, userId } = world.input();
  const turn = new LiveTurn({
    productId,
    userId,
    turnId: randomUUID(),
    taskId: "t",
    fingerprint: "",
    startedBy: null,
    fencingToken: 1,
  });
  const watchdog = new IdleWatchdog(systemClock, { idleMs: 60_000, personMs: 60_000 }, turn.questions);
  const source = { pause: () => {}, resume: () => {} };
  const reader = new UpstreamReader(world.ctx, { turn, watchdog, source, apiKey: "" });
  const pieces = Array.from({ length: 5 }, () => Buffer.alloc(EVENT_MAX_BYTES, "x"));
  for (const piece of [Buffer.from(`${done}data: `), ...pieces]) reader.onChunk(piece);
  reader.onClose(true, "");
  const outcome = await reader.untilOver(async () => "unsupported");
  expect(outcome).toMatchObject({ kind: "ended", cause: COMPLETED });
});

interface Framed {
  type: string | undefined;
  lines: string[];
  ending: string;
  space: string;
  extra: string;
}

const line = fc.string({ unit: "binary", maxLength: 20 }).map((text) => text.replaceAll(/[\r\n]/g, " "));
const framed: fc.Arbitrary<Framed> = fc.record({
  type: fc.constantFrom(undefined, "text_delta", "ünï😀", "data", "__proto__"),
  lines: fc.oneof(
    fc.jsonValue().map((value) => JSON.stringify(value, undefined, 1).split("\n")),
    fc.array(line, { minLength: 1, maxLength: 4 }),
  ),
  ending: fc.constantFrom("\n", "\r", "\r\n"),
  space: fc.constantFrom(" ", ""),
  extra: fc.constantFrom(
    "",
    ": comment",
    ":",
    "id: 7",
    "id",
    "retry: 10",
    "retry: never",
    "unknown: x",
    "datax",
  ),
});
const stream = fc.record({
  events: fc.array(framed, { maxLength: 6 }),
  mark: fc.constantFrom("", "\ufeff"),
  cuts: fc.array(fc.nat(400), { maxLength: 12 }),
});

function toText({ type, lines, ending, space, extra }: Framed): string {
  // Without a space of its own, one that the data begins with would be taken for it.
  const data = lines.map((text) => `data:${text.startsWith(" ") ? " " : space}${text}`);
  const all = [...(type === undefined ? [] : [`event:${space}${type}`]), ...data, ""];
  return [...(extra === "" ? [] : [extra]), ...all].map((text) => `${text}${ending}`).join("");
}

function toSeen({ type = "message", lines }: Framed): Seen {
  const text = lines.join("\n").toWellFormed();
  try {
    return [type, JSON.parse(text)];
  } catch {
    return [type, text];
  }
}

test("however a stream is written and cut into pieces, its events come out as they went in", async () => {
  const volley = fc.array(stream, { minLength: 12, maxLength: 12 });
  const relay = async (streams: (typeof stream extends fc.Arbitrary<infer Value> ? Value : never)[]) => {
    const inputs = streams.map(() => world.input());
    world.engine.onCall = (call) => {
      const index = inputs.findIndex(({ request }) => request.taskId === call.body["task_id"]);
      const { events = [], mark = "", cuts = [] } = streams[index] ?? {};
      const bytes = Buffer.from(`${mark}${events.map(toText).join("")}${done}`);
      const places = cuts.map((cut) => cut % bytes.length).sort((a, b) => a - b);
      pieceByPiece(splitAt(bytes, ...places))(call);
    };
    await Promise.all(
      inputs.map(async (input, index) => {
        await startTurn(world.ctx, input);
        const read = await readAll(world.ctx, input);
        expect(seen(read.events)).toEqual(streams[index]?.events.map(toSeen));
        expect(read.end).toMatchObject(COMPLETED);
      }),
    );
  };
  await fc.assert(fc.asyncProperty(volley, relay), { numRuns: 12 });
});
