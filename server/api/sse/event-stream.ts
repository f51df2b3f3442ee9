import type { OutgoingHttpHeaders } from "node:http";
import type { Socket } from "node:net";
import type { FastifyReply } from "fastify";
import { cutConnection, STALL_MS, type UnsentAnswers } from "../http/unsent-answers.ts";

/** A client may treat its connection as dead after this time without a byte. */
export const SILENCE_MS = 30_000;
const PING_INTERVAL_MS = SILENCE_MS / 2;
/** Larger texts are sent in pieces of this size, each once the reader has taken the one before. */
const PIECE_BYTES = 64 * 1024;
const CLOSE_SOON_MS = 1_000;

/** `no-transform` keeps proxies from compressing the stream, `x-accel-buffering` keeps nginx from collecting it. */
const STREAM_HEADERS = {
  "content-type": "text/event-stream",
  "cache-control": "no-cache, no-transform",
  "x-accel-buffering": "no",
};

/** What a transport adds to the events. */
export interface StreamFormat {
  /** Headers besides those of every stream. */
  headers?: OutgoingHttpHeaders;
  /** The text that is sent before everything else. It may be empty. */
  greeting: string;
  /** The text that is sent after 15 s of silence. */
  ping: string;
}

export interface EventStreamOptions {
  unsent: UnsentAnswers;
  format: StreamFormat;
}

/**
 * A reply of server-sent events. Its head is sent with the first event; until then, the reply can still be another one.
 * Pings keep the connection alive. A reader that takes nothing for a minute, although bytes wait for it, loses its
 * connection.
 */
export class EventStream {
  /** Undefined once the head was sent, so that an open stream does not hold it. */
  #reply: FastifyReply | undefined;
  readonly #response: FastifyReply["raw"];
  readonly #socket: Socket;
  readonly #unsent: UnsentAnswers;
  readonly #format: StreamFormat;
  /** Runs once the head was sent. It restarts with each write. */
  #ticks: NodeJS.Timeout | undefined;
  #cut: NodeJS.Timeout | undefined;
  #onRoom: (() => void) | undefined;
  /** The part of a large text that the connection did not take yet. */
  #rest: Buffer | undefined;
  #isEnding = false;
  /** The unsent bytes at the last tick. */
  #unsentBefore = 0;
  #stalledMs = 0;

  constructor(reply: FastifyReply, { unsent, format }: EventStreamOptions) {
    this.#reply = reply;
    this.#response = reply.raw;
    this.#socket = reply.request.raw.socket;
    this.#unsent = unsent;
    this.#format = format;
    this.#response.once("close", () => this.#onClose());
    this.#response.on("drain", () => this.#onDrain());
    // A failed write closes the connection, and the close is handled above.
    this.#response.on("error", () => undefined);
  }

  /** True once the head was sent. */
  get hasBegun(): boolean {
    return this.#reply === undefined;
  }

  /** False while the reader is behind. Then await `untilRoom` before the next write. */
  get hasRoom(): boolean {
    if (this.#response.destroyed) return true;
    return this.#rest === undefined && !this.#response.writableNeedDrain;
  }

  /** Sends events in one write, or in pieces if they are large. Drops them after the end, or if the reader has left. */
  write(events: string): void {
    if (this.#response.destroyed || this.#isEnding) return;
    this.#ticks?.refresh();
    this.#send(this.#writeHead() ? this.#format.greeting + events : events);
  }

  /** Sends the head and a first text, unless an event was sent before. Some proxies keep a head without a body back. */
  begin(): void {
    if (this.hasBegun) return;
    this.write(this.#format.greeting === "" ? this.#format.ping : "");
  }

  #send(events: string): void {
    // A UTF-16 unit is three bytes at most, so the many small texts need no exact count.
    if (this.#rest === undefined && events.length * 3 <= PIECE_BYTES) {
      if (!this.#response.write(events)) this.#noteUnsent();
      return;
    }
    const bytes = Buffer.from(events);
    this.#rest = this.#rest ? Buffer.concat([this.#rest, bytes]) : bytes;
    this.#sendRest();
  }

  /** Resolves when the reader has caught up, or the connection has closed. */
  async untilRoom(): Promise<void> {
    if (this.hasRoom) return;
    await new Promise<void>((resolve) => {
      this.#onRoom = resolve;
    });
  }

  /** The reader gets what was written before, at its own pace. */
  end(): void {
    if (this.#response.destroyed || this.#isEnding) return;
    this.#writeHead();
    this.#isEnding = true;
    if (this.#rest === undefined) this.#response.end();
  }

  /** The connection closes within a second, even if its reader does not take what was written. */
  closeSoon(): void {
    if (this.#response.closed) return;
    this.#cut ??= setTimeout(() => cutConnection(this.#socket), CLOSE_SOON_MS);
  }

  get #unsentBytes(): number {
    return this.#response.writableLength + (this.#rest?.length ?? 0);
  }

  /** False: it was sent before. */
  #writeHead(): boolean {
    const reply = this.#reply;
    if (reply === undefined) return false;
    this.#reply = undefined;
    // From here on fastify sends no reply of its own.
    reply.hijack();
    this.#response.writeHead(200, {
      ...(reply.getHeaders() as OutgoingHttpHeaders),
      ...STREAM_HEADERS,
      ...this.#format.headers,
    });
    this.#ticks = setTimeout(() => this.#tick(), PING_INTERVAL_MS);
    return true;
  }

  #sendRest(): void {
    while (this.#rest !== undefined && !this.#response.writableNeedDrain) {
      const piece = this.#rest.subarray(0, PIECE_BYTES);
      this.#rest = piece.length < this.#rest.length ? this.#rest.subarray(PIECE_BYTES) : undefined;
      this.#response.write(piece);
    }
    if (this.#rest === undefined && this.#isEnding) this.#response.end();
    this.#noteUnsent();
  }

  #noteUnsent(): void {
    if (!this.hasRoom) this.#unsent.add(this.#response, { socket: this.#socket, bytes: this.#unsentBytes });
  }

  #onDrain(): void {
    this.#stalledMs = 0;
    this.#unsent.remove(this.#response);
    this.#sendRest();
    if (this.hasRoom) this.#makeRoom();
  }

  #onClose(): void {
    clearTimeout(this.#ticks);
    clearTimeout(this.#cut);
    this.#rest = undefined;
    this.#unsent.remove(this.#response);
    this.#makeRoom();
  }

  #makeRoom(): void {
    const resolve = this.#onRoom;
    this.#onRoom = undefined;
    resolve?.();
  }

  /** A reader that is behind has unread bytes, so it needs no ping. */
  #tick(): void {
    const unsentBytes = this.#unsentBytes;
    this.#stalledMs = unsentBytes === this.#unsentBefore ? this.#stalledMs + PING_INTERVAL_MS : 0;
    this.#unsentBefore = unsentBytes;
    if (unsentBytes === 0) this.write(this.#format.ping);
    // A pipelined answer without the socket waits for the answers before it, not for the reader.
    else if (this.#stalledMs >= STALL_MS && this.#response.socket !== null) cutConnection(this.#socket);
    this.#ticks?.refresh();
  }
}

/** Formats an event that is no item of the stream. Like tRPC, with one more newline than the standard needs. */
export function toEvent(event: string, data: string): string {
  return `event: ${event}\ndata: ${data}\n\n\n`;
}
