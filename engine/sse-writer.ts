import type { ServerResponse } from "node:http";

/** Writes server-sent events to one reader. Events for a reader that has left are dropped without an error. */
export class SseWriter {
  readonly #res: ServerResponse;
  readonly #hurry: AbortSignal | undefined;

  /** After `hurry` aborts, `send` no longer waits for a slow reader. */
  constructor(res: ServerResponse, hurry?: AbortSignal) {
    this.#res = res;
    this.#hurry = hurry;
    res.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
    res.flushHeaders();
  }

  get isClosed(): boolean {
    return this.#res.destroyed || this.#res.closed;
  }

  /**
   * `data` is JSON text. Without `id` the event has none. Resolves when the reader can take more or has left, or in a
   * hurry.
   */
  async send(type: string, data: string, id?: number): Promise<void> {
    const idLine = id === undefined ? "" : `id: ${id}\n`;
    if (this.isClosed || this.#res.write(`event: ${type}\n${idLine}data: ${data}\n\n`)) return;
    await this.#next("drain", this.#hurry);
  }

  /** Resolves when the operating system has all bytes, or the reader has left. */
  async end(): Promise<void> {
    if (this.isClosed) return;
    const finished = this.#next("finish");
    this.#res.end();
    await finished;
  }

  #next(event: "drain" | "finish", signal?: AbortSignal): Promise<void> {
    const res = this.#res;
    return new Promise((resolve) => {
      if (signal?.aborted === true) {
        resolve();
        return;
      }
      const done = (): void => {
        res.off(event, done);
        res.off("close", done);
        signal?.removeEventListener("abort", done);
        resolve();
      };
      res.on(event, done);
      res.on("close", done);
      signal?.addEventListener("abort", done);
    });
  }
}
