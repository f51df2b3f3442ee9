import type { OutgoingHttpHeaders } from "node:http";
import type { FastifyReply } from "fastify";

/** After this long without a byte a client may take its connection for dead. */
export const SILENCE_MS = 30_000;
const PING_INTERVAL_MS = SILENCE_MS / 2;
const PING = toEvent("ping", "");

/** What tRPC says of its own. */
const HEADERS = {
  vary: "trpc-accept, accept",
  "content-type": "text/event-stream",
  "cache-control": "no-cache, no-transform",
  "x-accel-buffering": "no",
};

/** A reply of server-sent events: its head leaves with the first of them, and pings keep it alive. */
export class EventStream {
  /** Until the head has left. */
  #reply: FastifyReply | undefined;
  readonly #to: FastifyReply["raw"];
  /** From the head on. */
  #ping: NodeJS.Timeout | undefined;
  #onRoom: (() => void) | undefined;

  constructor(reply: FastifyReply) {
    this.#reply = reply;
    this.#to = reply.raw;
    reply.hijack();
    this.#to.once("close", () => {
      clearTimeout(this.#ping);
      this.#makeRoom();
    });
    this.#to.on("drain", () => this.#makeRoom());
    // A write that fails closes the connection, and that is what counts.
    this.#to.on("error", () => undefined);
  }

  /**
   * One write. Returns false when the reader is behind, and `untilRoom` tells when there is room for more. What comes
   * after the end, or after the reader has left, is dropped.
   */
  write(events: string): boolean {
    if (this.#to.destroyed || this.#to.writableEnded) return true;
    this.#writeHead();
    this.#ping?.refresh();
    return this.#to.write(events);
  }

  /** Settles, too, when the connection closes. */
  async untilRoom(): Promise<void> {
    if (!this.#to.writableNeedDrain || this.#to.destroyed) return;
    await new Promise<void>((resolve) => {
      this.#onRoom = resolve;
    });
  }

  end(): void {
    if (!this.#to.destroyed) {
      this.#writeHead();
      this.#to.end();
    }
    clearTimeout(this.#ping);
  }

  #writeHead(): void {
    const ours = this.#reply?.getHeaders() as OutgoingHttpHeaders | undefined;
    if (ours === undefined) return;
    this.#reply = undefined;
    this.#to.writeHead(200, { ...ours, ...HEADERS });
    this.#ping = setTimeout(() => this.#sendPing(), PING_INTERVAL_MS);
  }

  #makeRoom(): void {
    const resolve = this.#onRoom;
    this.#onRoom = undefined;
    resolve?.();
  }

  #sendPing(): void {
    // Whoever does not read has more to read already.
    if (this.#to.writableNeedDrain) this.#ping?.refresh();
    else this.write(PING);
  }
}

/** An event that is none of the stream's items, as tRPC writes it: with a newline more than it takes. */
export function toEvent(event: string, data: string): string {
  return `event: ${event}\ndata: ${data}\n\n\n`;
}
