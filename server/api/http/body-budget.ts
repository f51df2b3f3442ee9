/** A body of at most this size is small. */
const SMALL_BYTES = 64 * 1024;
/** The part of each budget that bodies other than small ones may use, so that they never keep out the small ones. */
const SHARE_OF_LARGE = 3 / 4;
const CALLER_SHARE = 1 / 4;
/** Room for a body of the largest size, whatever the total. */
const MIN_CALLER_BYTES = 16 * 1024 * 1024;

/** Counting each piece that arrives would cost more than it tells. */
const STEP_BYTES = 64 * 1024;

/** The bytes that one body holds. */
export interface HeldBytes {
  /** So many bytes are held now. Returns which budget has no room for them; then nothing is changed. */
  grow(bytes: number): Refused | undefined;
  /** May be called more than once. */
  release(): void;
}

export type Refused = "caller" | "total";

/**
 * Bounds the bytes of the request bodies that are held at the same time: for each caller, and in all.
 *
 * A caller's own bound counts the stated length of each body from its head on. The total counts what has arrived, so
 * that callers who send slowly, or nothing, do not take the room of others.
 */
export class BodyBudget {
  readonly #totalBytes: number;
  readonly #callerBytes: number;
  readonly #callers = new Map<string, number>();
  #used = 0;

  constructor(totalBytes: number) {
    this.#totalBytes = totalBytes;
    this.#callerBytes = Math.min(totalBytes, Math.max(MIN_CALLER_BYTES, totalBytes * CALLER_SHARE));
  }

  /** The bytes that have arrived. */
  get usedBytes(): number {
    return this.#used;
  }

  /** Returns the held bytes of a body with this stated length, or which budget has no room for it. */
  hold(caller: string, statedBytes: number): HeldBytes | Refused {
    if (!this.#hasRoomFor(caller, { size: statedBytes, more: statedBytes })) return "caller";
    let reserved = statedBytes;
    let arrived = 0;
    this.#reserve(caller, reserved);
    const grow = (bytes: number): Refused | undefined => {
      if (bytes <= arrived) return undefined;
      const next = Math.max(bytes, Math.min(statedBytes, Math.ceil(bytes / STEP_BYTES) * STEP_BYTES));
      const size = Math.max(next, reserved);
      if (!this.#hasRoomFor(caller, { size, more: size - reserved })) return "caller";
      if (this.#used + next - arrived > this.#totalBytes * toShare(size)) return "total";
      this.#reserve(caller, size - reserved);
      this.#used += next - arrived;
      reserved = size;
      arrived = next;
      return undefined;
    };
    const release = () => {
      this.#reserve(caller, -reserved);
      this.#used -= arrived;
      reserved = 0;
      arrived = 0;
    };
    return { grow, release };
  }

  #hasRoomFor(caller: string, { size, more }: { size: number; more: number }): boolean {
    return more === 0 || (this.#callers.get(caller) ?? 0) + more <= this.#callerBytes * toShare(size);
  }

  #reserve(caller: string, bytes: number): void {
    const used = (this.#callers.get(caller) ?? 0) + bytes;
    if (used === 0) this.#callers.delete(caller);
    else this.#callers.set(caller, used);
  }
}

function toShare(bodyBytes: number): number {
  return bodyBytes > SMALL_BYTES ? SHARE_OF_LARGE : 1;
}
