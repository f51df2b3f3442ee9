import type { ServerResponse } from "node:http";
import type { Socket } from "node:net";

/** Callers that take nothing for this long lose their connection. */
export const STALL_MS = 60_000;
/** For all connections together. Without a cause of its own, one connection has far less than 1 MiB. */
const TOTAL_MAX_BYTES = 128 * 1024 * 1024;

interface UnsentAnswer {
  socket: Socket;
  bytes: number;
}

/**
 * The answers that their callers do not take as fast as they are made. Together they hold a bounded number of bytes:
 * beyond it, the connections that have taken nothing for the longest time are cut. Their readers resume from a cursor.
 */
export class UnsentAnswers {
  readonly #maxBytes: number;
  /** In the order of their last progress, because a Map keeps the order of insertion. */
  readonly #answers = new Map<ServerResponse, UnsentAnswer>();
  #totalBytes = 0;

  constructor(maxBytes = TOTAL_MAX_BYTES) {
    this.#maxBytes = maxBytes;
  }

  get totalBytes(): number {
    return this.#totalBytes;
  }

  /** So many bytes wait for the caller to take them. Call it again after each progress, and `remove` at the end. */
  add(response: ServerResponse, answer: UnsentAnswer): void {
    this.remove(response);
    this.#answers.set(response, answer);
    this.#totalBytes += answer.bytes;
    for (const [oldest, { socket }] of this.#answers) {
      if (this.#totalBytes <= this.#maxBytes) return;
      this.remove(oldest);
      cutConnection(socket);
    }
  }

  remove(response: ServerResponse): void {
    this.#totalBytes -= this.#answers.get(response)?.bytes ?? 0;
    this.#answers.delete(response);
  }
}

/** Resets the connection. After a plain close, the kernel would keep what it has not sent for minutes. */
export function cutConnection(socket: Socket): void {
  if (!socket.destroyed) socket.resetAndDestroy();
}
