import { Agent, request, type IncomingMessage } from "node:http";

export type Wire = "tRPC" | "raw";

interface NumberReaderInput {
  url: string;
  key: string;
  turnId: string;
  wire: Wire;
  afterSeq: number;
}

/** Reads a turn of the stage engine, and keeps only what it has seen. */
export interface NumberReader {
  /** Resolves with the status of the reply. */
  readonly opened: Promise<number>;
  /** Of the last numbered event; those before it were in order unless there is trouble. */
  readonly lastSeq: number;
  /** The first event that was out of order, missing or changed; undefined: none was. */
  readonly trouble: string | undefined;
  /** The status of the turn's end, once it has arrived. */
  readonly end: string | undefined;
  readonly isClosed: boolean;
  /** Begins to take what arrives. Without it the reader stalls. */
  flow(): void;
  leave(): void;
}

/** The number of an event on the wire, and the number that the engine wrote into its data. */
const EVENT: Readonly<Record<Wire, RegExp>> = {
  tRPC: /\{"seq":(\d+),"at":"[^"]*","type":"m","data":\{"n":(\d+),/g,
  raw: /id: (\d+)\nevent: m\ndata: \{"n":(\d+),/g,
};
const END: Readonly<Record<Wire, RegExp>> = {
  tRPC: /"end":\{"status":"(\w+)"/,
  raw: /event: enginehouse\.end\ndata: \{"status":"(\w+)"/,
};
/** More than what a part of a match can have at the end of a chunk. */
const TAIL_CHARS = 300;
const agent = new Agent({ keepAlive: false, maxSockets: Infinity });

export function openNumberReader({ url, key, turnId, wire, afterSeq }: NumberReaderInput): NumberReader {
  const path =
    wire === "raw"
      ? `/v1/turns/${turnId}/events`
      : `/trpc/turns.events?input=${encodeURIComponent(JSON.stringify({ turnId }))}`;
  const opened = Promise.withResolvers<number>();
  const reader = {
    opened: opened.promise,
    // The first event is that of the lifecycle, without a number.
    lastSeq: Math.max(afterSeq, 1),
    trouble: undefined as string | undefined,
    end: undefined as string | undefined,
    isClosed: false,
    flow: () => void opened.promise.then(() => response?.on("data", take)),
    leave: () => sent.destroy(),
  };
  let response: IncomingMessage | undefined;
  let text = "";
  const take = (chunk: string) => {
    text += chunk;
    let read = 0;
    for (const match of text.matchAll(EVENT[wire])) {
      read = match.index + match[0].length;
      const [, seq, number] = match;
      const expected = String(reader.lastSeq + 1);
      if (seq !== expected || number !== expected) {
        reader.trouble ??= `${wire}: event ${seq} with the number ${number} came instead of event ${expected}`;
      }
      reader.lastSeq = Number(seq);
    }
    reader.end ??= END[wire].exec(text)?.[1];
    text = text.slice(Math.max(read, text.length - TAIL_CHARS));
  };
  const headers = {
    authorization: `Bearer ${key}`,
    ...(afterSeq > 0 && { "last-event-id": String(afterSeq) }),
  };
  const sent = request(`${url}${path}`, { agent, headers }, (answered) => {
    response = answered.setEncoding("latin1").on("error", () => {});
    opened.resolve(answered.statusCode ?? 0);
  });
  sent.on("error", opened.reject).on("close", () => {
    reader.isClosed = true;
  });
  sent.end();
  // A caller that leaves does not await it.
  opened.promise.catch(() => {});
  return reader;
}
