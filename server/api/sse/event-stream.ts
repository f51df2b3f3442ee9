import type { OutgoingHttpHeaders } from "node:http";
import type { FastifyReply } from "fastify";

/** A client may treat its connection as dead after this time without a byte. */
export const SILENCE_MS = 30_000;
const PING_INTERVAL_MS = SILENCE_MS / 2;
const PING = toEvent("ping", "");

/** The headers of tRPC's own handler. */
const HEADERS = {
  vary: "trpc-accept, accept",
  "content-type": "text/event-stream",
  "cache-control": "no-cache, no-transform",
  "x-accel-buffering": "no",
};

/** A reply of server-sent events. Its head is sent with the first event. Pings keep the connection alive. */
export class EventStream {
  /** Undefined once the head was sent, so that an open stream does not hold it. */
  #reply: FastifyReply | undefined;
  readonly #response: FastifyReply["raw"];
  /** Runs once the head was sent. */
  #ping: NodeJS.Timeout | undefined;
  #onRoom: (() => void) | undefined;

  constructor(reply: FastifyReply) {
    this.#reply = reply;
    this.#response = reply.raw;
    reply.hijack();
    this.#response.once("close", () => {
      clearTimeout(this.#ping);
      this.#makeRoom();
    });
    this.#response.on("drain", () => this.#makeRoom());
    // A failed write closes the connection, and the close is handled above.
    this.#response.on("error", () => undefined);
  }

  /**
   * Sends events in one write. Returns false if the reader is slow: then await `untilRoom` before the next write.
   * Events after the end, or after the reader has left, are dropped.
   */
  write(events: string): boolean {
    if (this.#response.destroyed || this.#response.writableEnded) return true;
    this.#writeHead();
    this.#ping?.refresh();
    return this.#response.write(events);
  }

  /** Resolves when the reader has caught up, or the connection has closed. */
  async untilRoom(): Promise<void> {
    if (!this.#response.writableNeedDrain || this.#response.destroyed) return;
    await new Promise<void>((resolve) => {
      this.#onRoom = resolve;
    });
  }

  end(): void {
    if (!this.#response.destroyed) {
      this.#writeHead();
      this.#response.end();
    }
    clearTimeout(this.#ping);
  }

  #writeHead(): void {
    const ours = this.#reply?.getHeaders() as OutgoingHttpHeaders | undefined;
    if (ours === undefined) return;
    this.#reply = undefined;
    this.#response.writeHead(200, { ...ours, ...HEADERS });
    this.#ping = setTimeout(() => this.#sendPing(), PING_INTERVAL_MS);
  }

  #makeRoom(): void {
    const resolve = this.#onRoom;
    this.#onRoom = undefined;
    resolve?.();
  }

  #sendPing(): void {
    // A reader that is behind has unread bytes, so it needs no ping.
    if (this.#response.writableNeedDrain) this.#ping?.refresh();
    else this.write(PING);
  }
}

/** Formats an event that is no item of the stream. Like tRPC, with one more newline than the standard needs. */
export function toEvent(event: string, data: string): string {
  return `event: ${event}\ndata: ${data}\n\n\n`;
}
