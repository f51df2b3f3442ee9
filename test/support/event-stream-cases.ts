/** What a reader of server-sent events must make of a stream. */
export interface EventStreamCase {
  title: string;
  stream: Buffer;
  messages: readonly StreamMessage[];
}

export interface StreamMessage {
  /** `message` if the stream names none. */
  type: string;
  data: string;
  /** The id that came with this message. undefined: none came. */
  id: string | undefined;
}

const LONG = "x".repeat(300);

/** Every rule of the format, after the HTML standard's chapter on server-sent events. */
export const EVENT_STREAM_CASES: readonly EventStreamCase[] = [
  of("a byte-order mark at the start is skipped", "\uFEFFdata: a\n\ndata: b\n\n", "a", "b"),
  of("a second byte-order mark belongs to the field's name", "\uFEFF\uFEFFdata: no\n\ndata: b\n\n", "b"),
  of(
    "a later byte-order mark belongs to the field's name",
    "data: a\n\n\uFEFFdata: no\n\ndata: c\n\n",
    "a",
    "c",
  ),
  of("a byte-order mark in a value stays", "data: \uFEFFa\n\n", "\uFEFFa"),
  of(
    "comments are skipped, long ones too",
    `:\n: x\ndata: a\r:\0\n:data: no\r\ndata: b\n:${LONG}\n\n`,
    "a\nb",
  ),
  of("a comment alone is no message", ":\n\n: x\n\n"),
  of("an event without its blank line is dropped", "retry: 10\ndata: a\n\nid: x\ndata: no", "a"),
  of("an event whose last line is complete still needs its blank line", "data: a\n\ndata: no\n", "a"),
  of("empty data is a message", "data:\n\ndata\n\n", "", ""),
  of("each data field is a line", "data\ndata\n\ndata: a\ndata:\ndata: b\n\n", "\n", "a\n\nb"),
  of("a field without a colon is empty", "data: a\ndata\n\n", "a\n"),
  of("a value keeps its colons", "data:a:b: c\n\n", "a:b: c"),
  of("one space after the colon is skipped, a tab is not", "data:\ta\rdata: \ndata:  b\n\n", "\ta\n\n b"),
  of("a type counts for one message", "event: e\ndata: a\n\ndata: b\n\n", { type: "e", data: "a" }, "b"),
  of("the last type counts", "event: e\nevent:f\ndata: a\n\n", { type: "f", data: "a" }),
  of(
    "an empty type is no type",
    "event: \ndata: a\n\nevent\ndata: b\n\nevent: e\nevent:\ndata: c\n\n",
    "a",
    "b",
    "c",
  ),
  of("a type without data is no message, and does not count for the next", "event: no\n\ndata: a\n\n", "a"),
  of("a type may be any text", "event:  e:ä 😀\ndata: a\n\n", { type: " e:ä 😀", data: "a" }),
  of("an id comes with its message", "id: 1\ndata: a\n\ndata: b\n\n", { data: "a", id: "1" }, "b"),
  of(
    "an empty id is an id",
    "id: 1\nid\ndata: a\n\nid:\ndata: b\n\n",
    { data: "a", id: "" },
    { data: "b", id: "" },
  ),
  of("an id with a NUL is ignored", "id: 1\ndata: a\n\nid: 2\0\ndata: b\n\n", { data: "a", id: "1" }, "b"),
  of("an id may have spaces and letters", "id: a b\ndata: a\n\n", { data: "a", id: "a b" }),
  of(
    "retry changes no message",
    "retry: 10\ndata: a\n\nretry: 10x\ndata: b\n\nretry\nretry: -1\ndata: c\n\n",
    "a",
    "b",
    "c",
  ),
  of(
    "names are exact: upper case, spaces and NUL make another field",
    "data: \0\ndata:  x\rData: no\ndata\0: no\nDATA: no\ndata: y\r\0data: no\nda-ta: no\rdata_: no\ndata : no\ndata: z\rdata:\r\n data: no\ndata: w\n\n",
    "\0\n x\ny\nz\n\nw",
  ),
  of("unknown fields are skipped", "data: a\n data: no\ndata\nfoo: x\nsome text\n: c\ndata: b\n\n", "a\n\nb"),
  of("a long unknown field is skipped", `data: a\n${LONG}\n${LONG}: x\ndata: b\n\n`, "a\nb"),
  of(
    "lines end with LF, CR or CRLF, in any mix",
    "data: a\r\ndata\ndata: b\r\n\rdata: c\r\rdata: d\n\r\ndata: e\r\n\r\n",
    "a\n\nb",
    "c",
    "d",
    "e",
  ),
  of("LF and CR are two ends of lines", "data: a\n\rdata: b\n\n", "a", "b"),
  of("CR at the end of the stream ends a line", "data: a\r\r", "a"),
  of(
    "other separators do not end a line",
    "data: a\u2028b\u2029c\u0085d\ve\ff\n\n",
    "a\u2028b\u2029c\u0085d\ve\ff",
  ),
  of("blank lines alone are no message", "\n\n\r\n\r\r\n\n"),
  of("many blank lines send a message once", "data: a\n\n\n\n\r\n", "a"),
  of("a NUL is a character", "data: \0\n\n\n\n", "\0"),
  of("text is UTF-8", "data: ä€😀\n\n", "ä€😀"),
  {
    title: "bytes that are not UTF-8 are replaced, and the lines stay",
    stream: Buffer.concat([
      Buffer.from("data: a"),
      Buffer.from([0xff, 0xe2, 0x82]),
      Buffer.from("\ndata: b"),
      Buffer.from([0xf0, 0x9f]),
      Buffer.from("c\n\ndata: d"),
      Buffer.from([0xc3]),
      Buffer.from("\n\n"),
    ]),
    messages: ["a\uFFFD\uFFFD\nb\uFFFDc", "d\uFFFD"].map(toMessage),
  },
  of("an empty stream has no message", ""),
];

/** All ways to cut a stream: not at all, at every byte, and once at each place. */
export function* cutEverywhere(stream: Buffer): Generator<Buffer[]> {
  yield [stream];
  yield Array.from(stream, (byte) => Buffer.from([byte]));
  for (let at = 1; at < stream.length; at += 1) yield [stream.subarray(0, at), stream.subarray(at)];
}

/** The content type of an answer, and whether its body is an event stream. */
export const CONTENT_TYPES: readonly [contentType: string, isEventStream: boolean][] = [
  ["text/event-stream", true],
  ["Text/Event-Stream", true],
  ["text/event-stream;", true],
  ["text/event-stream ; charset=utf-8", true],
  // The format is UTF-8, whatever the charset says.
  ["text/event-stream;charset=windows-1252", true],
  ["text/event-streams", false],
  ["text/event-stream/x", false],
  ["text/x-bogus", false],
  ["application/json", false],
  ["", false],
];

type Expected = string | (Pick<StreamMessage, "data"> & Partial<StreamMessage>);

function of(title: string, stream: string, ...messages: Expected[]): EventStreamCase {
  return { title, stream: Buffer.from(stream), messages: messages.map(toMessage) };
}

function toMessage(expected: Expected): StreamMessage {
  const given = typeof expected === "string" ? { data: expected } : expected;
  return { type: "message", id: undefined, ...given };
}
