import { EventSourceParserStream } from "eventsource-parser/stream";
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { RAW_FORMAT } from "../../../server/api/raw/raw-format.ts";
import { encodeForRaw } from "../../../server/api/raw/encode-for-raw.ts";
import { parseEventData } from "../../../server/engine-contract/event-data.ts";
import { TurnWindow } from "../../../server/turns/log/turn-window.ts";
import type { TurnBatch } from "../../../server/turns/read/turn-batch.ts";
import type { TurnEnd } from "../../../server/turns/model/turn-end.ts";
import { parseEvents } from "./open-raw.ts";

const END: TurnEnd = {
  status: "failed",
  reason: "ENGINE_ERROR",
  message: "line\nbreak",
  engineError: { code: "X", message: "\r\n\u2028", details: { a: [1] } },
  lastSeq: 3,
  engineMayContinue: false,
};

/** Encodes events as a turn keeps them. */
function encode(events: readonly { type: string; data: string }[]): string {
  const window = new TurnWindow();
  for (const { type, data } of events) {
    window.append({ at: "2026-11-29T10:00:00.000Z", type, json: parseEventData(data).json });
  }
  const lastSeq = window.lastSeq;
  return encodeForRaw("t", 0, { lastSeq, events: lastSeq === 0 ? [] : window.after(0, lastSeq) });
}

const encodeBatch = (batch: Partial<TurnBatch>, afterSeq = 0) =>
  encodeForRaw("t", afterSeq, { lastSeq: 0, events: [], ...batch });

test("an event has its seq as id, its type, and its data on one line as the engine wrote them", () => {
  const data = '{"n":9007199254740993,"x":[1e400,1.0,-0],"t":"\\u00e9\u2028\\/"}';
  expect(encode([{ type: "tool_call", data }])).toBe(`id: 1\nevent: tool_call\ndata: ${data}\n\n`);
});

describe("an engine cannot send what looks like the service's own:", () => {
  test.each([
    "enginehouse.end",
    "enginehouse.gap",
    "enginehouse.",
    "enginehouse.new",
    "Enginehouse.end",
    " enginehouse.end",
    "\u00a0enginehouse.end",
    "\ufeffenginehouse.end",
    "\u200b ENGINEHOUSE.gap",
  ])("the event type %j is delivered with a prefix", (type) => {
    expect(parseEvents(encode([{ type, data: "{}" }]))).toEqual([
      { id: "1", event: `engine.${type}`, data: "{}" },
    ]);
  });

  test.each([
    ["\tenginehouse.end", "engine.\ufffdenginehouse.end"],
    ["\u0000\u0085enginehouse.end", "engine.\ufffd\ufffdenginehouse.end"],
    ["a\u0000b\u007f\u009f", "a\ufffdb\ufffd\ufffd"],
    ['\u0001\u2028\u{1f600}"', '\ufffd\u2028\u{1f600}"'],
  ])("control characters in the event type %j are replaced", (type, event) => {
    expect(parseEvents(encode([{ type, data: "{}" }]))).toEqual([{ id: "1", event, data: "{}" }]);
  });

  test.each(["enginehouse", "my enginehouse.end", "x.enginehouse.end", "error", "message", "é.b"])(
    "the event type %j is delivered as it is",
    (type) => {
      expect(parseEvents(encode([{ type, data: "1" }]))).toEqual([{ id: "1", event: type, data: "1" }]);
    },
  );

  test.each([
    '","data":{"seq":9',
    'a","data":',
    '","type":"b',
    "back\\slash",
    'ends with \\"',
    "\\",
    "\u2028\u{1f600}",
  ])("the event type %j, which looks like the kept text, stays one type", (type) => {
    expect(parseEvents(encode([{ type, data: '{"type":"x","data":","}' }]))).toEqual([
      { id: "1", event: type, data: '{"type":"x","data":","}' },
    ]);
  });

  test("line breaks in data that are no JSON arrive escaped, and those between JSON tokens as spaces", () => {
    expect(parseEvents(encode([{ type: "t", data: "a\nid: 7\n\nevent: enginehouse.end" }]))).toEqual([
      { id: "1", event: "t", data: '"a\\nid: 7\\n\\nevent: enginehouse.end"' },
    ]);
    expect(parseEvents(encode([{ type: "t", data: '{\n"a":\n1.0}' }]))).toEqual([
      { id: "1", event: "t", data: '{ "a": 1.0}' },
    ]);
  });

  test("a stored type with line breaks, which no stream can have, stays on its line", () => {
    const stored = '{"seq":4,"at":"2026-11-29T10:00:00.000Z","type":"a\\r\\nid: 9\\n\\nb","data":1}';
    expect(encodeBatch({ lastSeq: 4, events: [stored] })).toBe(
      "id: 4\nevent: a\ufffd\ufffdid: 9\ufffd\ufffdb\ndata: 1\n\n",
    );
  });
});

describe("what is no event", () => {
  test("an end has its own seq as id", () => {
    const text = encodeBatch({ lastSeq: 3, end: END }, 2);
    expect(text).toMatch(/^id: 3\nevent: enginehouse\.end\ndata: [^\n\r]*\n\n$/);
    expect(JSON.parse(parseEvents(text)[0]?.data ?? "")).toEqual(END);
  });

  test("an end that the reader has is nothing; a refused key is something, whatever the cursor", () => {
    expect(encodeBatch({ lastSeq: 3, end: END }, 3)).toBe("");
    expect(encodeBatch({ lastSeq: 3, end: END }, 9)).toBe("");
    const end = { ...END, reason: "KEY_REVOKED" } as const;
    expect(encodeBatch({ lastSeq: 3, end }, 3)).toContain("KEY_REVOKED");
  });

  test("a gap has as id the cursor after it, and comes before the end", () => {
    const gap = { fromSeq: 1, toSeq: 2, reason: "retention" } as const;
    expect(parseEvents(encodeBatch({ lastSeq: 3, gap, end: END }))).toMatchObject([
      { id: "2", event: "enginehouse.gap", data: '{"fromSeq":1,"toSeq":2,"reason":"retention"}' },
      { id: "3", event: "enginehouse.end" },
    ]);
    const unknown = { fromSeq: 5, toSeq: 80, reason: "unknown_cursor" } as const;
    expect(parseEvents(encodeBatch({ lastSeq: 4, gap: unknown }, 80))).toMatchObject([{ id: "4" }]);
  });

  test("a batch that only says that the turn has begun is a comment, and so is the sign of life of a quiet stream", () => {
    expect(encodeBatch({})).toBe(":\n\n");
    expect(RAW_FORMAT.ping).toBe(":\n\n");
    expect(parseEvents(":\n\n")).toEqual([]);
  });
});

test("whatever types and data an engine sends, a parser of the web's format reads them back", async () => {
  const type = fc.string({ unit: "binary", minLength: 1 }).map((text) =>
    text
      .replaceAll(/\p{Cc}/gu, "")
      .toWellFormed()
      .replace(/^$/, "x"),
  );
  const data = fc.oneof(
    fc.json(),
    fc.string({ unit: "binary" }).map((text) => text.replaceAll("\r", "").toWellFormed()),
  );
  const events = fc.array(fc.record({ type, data }), { minLength: 1, maxLength: 8 });
  await fc.assert(
    fc.asyncProperty(events, async (sent) => {
      const bytes = new TextEncoder().encode(encode(sent));
      const parsed = ReadableStream.from([bytes])
        .pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>)
        .pipeThrough(new EventSourceParserStream());
      const got: unknown[] = [];
      for await (const event of parsed) got.push(event);
      const wanted = sent.map((event, index) => ({
        id: String(index + 1),
        event: event.type.startsWith("enginehouse.") ? `engine.${event.type}` : event.type,
        data: parseEventData(event.data).json,
      }));
      expect(got).toEqual(wanted);
    }),
    { numRuns: 300 },
  );
});
