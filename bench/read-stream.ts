import { Agent, request, type IncomingMessage } from "node:http";
import { EVENT_MARK } from "./load.ts";

export interface StreamRequest {
  url: string;
  method: "GET" | "POST";
  headers?: Readonly<Record<string, string>>;
  body?: string;
  signal: AbortSignal;
  /** Gets the text of each piece that arrives, at once. */
  onPiece?: ((text: string) => void) | undefined;
}

/** A stream that is read as cheaply as possible, because the reader shares the machine with the program under test. */
export interface StreamReading {
  /** Resolves when the first bytes of the body arrive. */
  opened: Promise<void>;
  /** Resolves with the number of events when the stream ends. Rejects when the stream is refused or breaks. */
  ended: Promise<number>;
}

const MARK = Buffer.from(EVENT_MARK);
const agent = new Agent({ keepAlive: false, maxSockets: Infinity });

export function readStream({
  url,
  method,
  headers = {},
  body,
  signal,
  onPiece,
}: StreamRequest): StreamReading {
  const opened = Promise.withResolvers<void>();
  const ended = Promise.withResolvers<number>();
  const fail = (error: unknown) => {
    opened.reject(error);
    ended.reject(error);
  };
  const sent = request(url, { method, headers, signal, agent }, (response) => {
    if (response.statusCode === 200) read(response, opened.resolve, onPiece).then(ended.resolve, fail);
    else fail(new Error(`${url} answered ${response.statusCode}`));
  });
  sent.once("error", fail);
  sent.end(body);
  // A caller may await only one of the two promises.
  opened.promise.catch(() => undefined);
  ended.promise.catch(() => undefined);
  return { opened: opened.promise, ended: ended.promise };
}

async function read(
  response: IncomingMessage,
  onFirst: () => void,
  onPiece?: (text: string) => void,
): Promise<number> {
  let events = 0;
  let tail: Buffer = Buffer.alloc(0);
  const done = Promise.withResolvers<void>();
  response.on("data", (chunk: Buffer) => {
    onFirst();
    onPiece?.(chunk.toString("latin1"));
    // A mark may be split across two chunks.
    const joined = tail.length === 0 ? chunk : Buffer.concat([tail, chunk]);
    events += countMarks(joined);
    tail = joined.subarray(Math.max(0, joined.length - MARK.length + 1));
  });
  response.once("end", () => done.resolve());
  response.once("error", done.reject);
  response.once("close", () => done.reject(new Error("the stream broke before its end")));
  await done.promise;
  return events;
}

function countMarks(bytes: Buffer): number {
  let count = 0;
  for (let at = bytes.indexOf(MARK); at !== -1; at = bytes.indexOf(MARK, at + MARK.length)) count += 1;
  return count;
}
