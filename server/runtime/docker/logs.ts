import type { DockerContext } from "./context.ts";
import { assertOwn } from "./own-containers.ts";
import { RuntimeFailure, type LogLine } from "../engine-runtime.ts";

/** The most that one call returns, whatever number of lines it asks for. */
const MAX_BYTES = 1024 * 1024;
const HEADER_BYTES = 8;
const STDERR = 2;
/** The daemon splits lines into pieces of 16 KB. It counts each piece as a line, and puts a timestamp before each. */
const MAX_PIECES = MAX_BYTES / (16 * 1024);
const TIMESTAMP = /^(\d{4}-\d\d-\d\dT\S+Z) /;

export async function readDockerLogs(
  ctx: DockerContext,
  containerId: string,
  tail: number,
): Promise<LogLine[]> {
  if (tail <= 0) return [];
  await assertOwn(ctx, containerId);
  return ctx.client.call(async (_docker, abortSignal) => {
    const stream = await openLogs(ctx, containerId, { tail: tail + MAX_PIECES, abortSignal });
    const kept = new LogTail(tail);
    for await (const frame of readFrames(stream)) kept.add(frame);
    return kept.lines;
  });
}

interface LogFrame {
  stream: LogLine["stream"];
  text: string;
}

/** dockerode's `container.logs` without `follow` holds the whole answer in memory before it returns. */
async function openLogs(
  ctx: DockerContext,
  containerId: string,
  { tail, abortSignal }: { tail: number; abortSignal: AbortSignal },
): Promise<AsyncIterable<Buffer>> {
  const answer = await new Promise<unknown>((resolve, reject) => {
    const request = {
      path: `/containers/${containerId}/logs?`,
      method: "GET",
      options: { stdout: true, stderr: true, timestamps: true, tail },
      statusCodes: { 200: true },
      isStream: true,
      abortSignal,
    };
    ctx.client.docker.modem.dial(request, (error, result) => (error ? reject(error) : resolve(result)));
  });
  if (isByteStream(answer)) return answer;
  throw new RuntimeFailure("refused", "the Docker daemon's answer to logs is not a stream");
}

function isByteStream(value: unknown): value is AsyncIterable<Buffer> {
  return typeof value === "object" && value !== null && Symbol.asyncIterator in value;
}

/**
 * Reads frames: one byte for the stream, three unused, four of length, then the text. docker-modem's `demuxStream` is not
 * used, because it has no backpressure and never ends its outputs.
 */
async function* readFrames(stream: AsyncIterable<Buffer>): AsyncGenerator<LogFrame, void, undefined> {
  let rest: Buffer = Buffer.alloc(0);
  for await (const chunk of stream) {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    while (rest.length >= HEADER_BYTES) {
      const end = HEADER_BYTES + rest.readUInt32BE(4);
      if (rest.length < end) break;
      const text = rest.toString("utf8", HEADER_BYTES, end);
      yield { stream: rest[0] === STDERR ? "stderr" : "stdout", text };
      rest = rest.subarray(end);
    }
  }
}

/** Keeps the last lines, up to a number of lines and `MAX_BYTES`. */
class LogTail {
  readonly #max: number;
  readonly lines: LogLine[] = [];
  /** The incomplete line of each stream. */
  readonly #open = new Map<LogLine["stream"], LogLine>();
  #bytes = 0;

  constructor(max: number) {
    this.#max = max;
  }

  add({ stream, text }: LogFrame): void {
    const match = TIMESTAMP.exec(text);
    const content = match === null ? text : text.slice(match[0].length);
    const isWhole = content.endsWith("\n");
    const piece = isWhole ? content.slice(0, -1) : content;
    let line = this.#open.get(stream);
    if (line === undefined) {
      line = { at: toInstant(match?.[1]), stream, line: "" };
      this.lines.push(line);
    }
    if (line.line.length + piece.length <= MAX_BYTES) {
      line.line += piece;
      this.#bytes += piece.length;
    }
    if (isWhole) this.#open.delete(stream);
    else this.#open.set(stream, line);
    this.#trim();
  }

  #trim(): void {
    while (this.lines.length > 1 && (this.lines.length > this.#max || this.#bytes > MAX_BYTES)) {
      this.#bytes -= this.lines.shift()?.line.length ?? 0;
    }
  }
}

/** Drops the digits after the milliseconds. */
function toInstant(time: string | undefined): string {
  return new Date(time ?? 0).toISOString();
}
