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

/** The unsent answers of one owner: a product, or an operator. */
interface OwnerAnswers {
  bytes: number;
  /** In the order of their last progress, because a Map keeps the order of insertion. */
  readonly sockets: Map<ServerResponse, Socket>;
}

/**
 * The answers that their callers do not take as fast as they are made. Together they hold a bounded number of bytes.
 * Beyond it, the owner with the most bytes loses the connections that have taken nothing for the longest time. So one
 * product's stalled readers do not cut another one's slow readers. Readers resume from a cursor.
 */
export class UnsentAnswers {
  readonly #ownerOf: (socket: Socket) => string;
  readonly #maxBytes: number;
  readonly #answers = new Map<ServerResponse, { owner: string; bytes: number }>();
  readonly #owners = new Map<string, OwnerAnswers>();
  #totalBytes = 0;

  constructor(ownerOf: (socket: Socket) => string, maxBytes = TOTAL_MAX_BYTES) {
    this.#ownerOf = ownerOf;
    this.#maxBytes = maxBytes;
  }

  get totalBytes(): number {
    return this.#totalBytes;
  }

  /** So many bytes wait for the caller to take them. Call it again after each progress, and `remove` at the end. */
  add(response: ServerResponse, { socket, bytes }: UnsentAnswer): void {
    this.remove(response);
    const owner = this.#ownerOf(socket);
    this.#answers.set(response, { owner, bytes });
    const own = this.#owners.get(owner) ?? { bytes: 0, sockets: new Map<ServerResponse, Socket>() };
    this.#owners.set(owner, own);
    own.sockets.set(response, socket);
    own.bytes += bytes;
    this.#totalBytes += bytes;
    while (this.#totalBytes > this.#maxBytes) this.#cutOldestOfLargest();
  }

  remove(response: ServerResponse): void {
    const answer = this.#answers.get(response);
    if (answer === undefined) return;
    this.#answers.delete(response);
    this.#totalBytes -= answer.bytes;
    const own = this.#owners.get(answer.owner);
    if (own === undefined) return;
    own.bytes -= answer.bytes;
    own.sockets.delete(response);
    if (own.sockets.size === 0) this.#owners.delete(answer.owner);
  }

  #cutOldestOfLargest(): void {
    let largest: OwnerAnswers | undefined;
    for (const own of this.#owners.values()) if (own.bytes > (largest?.bytes ?? -1)) largest = own;
    const [oldest] = largest?.sockets ?? [];
    if (oldest === undefined) return;
    const [response, socket] = oldest;
    this.remove(response);
    cutConnection(socket);
  }
}

/** Cuts the connection if it takes no byte of the response for too long. For answers that are sent in one write. */
export function cutOnceStalled(response: ServerResponse, socket: Socket): void {
  // Node calls back only if the connection took no byte in this time.
  response.setTimeout(STALL_MS, () => cutConnection(socket));
}

/** Resets the connection. After a plain close, the kernel would keep what it has not sent for minutes. */
export function cutConnection(socket: Socket): void {
  if (!socket.destroyed) socket.resetAndDestroy();
}
