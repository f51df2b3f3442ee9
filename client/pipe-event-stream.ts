import { toEventStream, type EventStreamOptions } from "./event-stream.ts";
import type { Turn } from "./turn.ts";

/** The parts of Node's IncomingMessage that are used. The package needs no types of Node. */
export interface NodeRequest {
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
}

/** The parts of Node's ServerResponse that are used. */
export interface NodeResponse {
  readonly destroyed: boolean;
  writeHead(status: number, headers: Record<string, string>): void;
  write(chunk: Uint8Array): boolean;
  end(): void;
  once(event: "close" | "drain", listener: () => void): void;
  off(event: "close" | "drain", listener: () => void): void;
}

export interface PipeEventStreamOptions extends Omit<EventStreamOptions, "signal"> {
  /** Its header `Last-Event-ID` is the cursor, unless `lastEventId` is given. */
  request: NodeRequest;
  /** The reading stops when it closes. */
  response: NodeResponse;
}

/**
 * `toEventStream` for Node's `http` and all that is made of it, such as Express. Resolves when the response has ended, or
 * the browser has left.
 */
export async function pipeEventStream(turn: Turn, options: PipeEventStreamOptions): Promise<void> {
  const { request, response, ...rest } = options;
  const left = new AbortController();
  const leave = () => left.abort();
  response.once("close", leave);
  try {
    const lastEventId = request.headers["last-event-id"];
    const answer = await toEventStream(turn, { lastEventId, ...rest, signal: left.signal });
    if (response.destroyed) return;
    response.writeHead(answer.status, Object.fromEntries(answer.headers));
    if (answer.body) await writeBody(answer.body, response);
    response.end();
  } catch (error) {
    if (!left.signal.aborted) throw error;
  } finally {
    response.off("close", leave);
  }
}

async function writeBody(body: ReadableStream<Uint8Array>, response: NodeResponse): Promise<void> {
  const reader = body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done || response.destroyed) return;
      if (!response.write(value)) await untilRoom(response);
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

/** Resolves when the browser has taken what was written, or has left. */
async function untilRoom(response: NodeResponse): Promise<void> {
  await new Promise<void>((resolve) => {
    const wake = () => {
      response.off("drain", wake);
      response.off("close", wake);
      resolve();
    };
    response.once("drain", wake);
    response.once("close", wake);
    if (response.destroyed) wake();
  });
}
