/** A body of at most this size is small. */
const SMALL_BYTES = 64 * 1024;
/** The part of each budget that bodies other than small ones may use, so that they never keep out the small ones. */
const SHARE_OF_LARGE = 3 / 4;
const CALLER_SHARE = 1 / 4;
/** Room for a body of the largest size, whatever the total. */
const MIN_CALLER_BYTES = 16 * 1024 * 1024;

/** The bytes that one body holds. */
export interface HeldBytes {
  /** Changes the number of bytes. False: the budget has no room, and nothing is changed. */
  resize(bytes: number): boolean;
  /** May be called more than once. */
  release(): void;
}

export type Refused = "caller" | "total";

/** Bounds the bytes of the request bodies that are held at the same time: for each caller, and in all. */
export class BodyBudget {
  readonly #totalBytes: number;
  readonly #callerBytes: number;
  readonly #callers = new Map<string, number>();
  #used = 0;

  constructor(totalBytes: number) {
    this.#totalBytes = totalBytes;
    this.#callerBytes = Math.min(totalBytes, Math.max(MIN_CALLER_BYTES, totalBytes * CALLER_SHARE));
  }

  get usedBytes(): number {
    return this.#used;
  }

  /** Returns the held bytes, or which budget has no room for them. */
  hold(caller: string, bytes: number): HeldBytes | Refused {
    let held = 0;
    const refused = this.#findRefusal(caller, { bytes, held });
    if (refused !== undefined) return refused;
    const resize = (next: number): boolean => {
      if (next > held && this.#findRefusal(caller, { bytes: next, held }) !== undefined) return false;
      this.#add(caller, next - held);
      held = next;
      return true;
    };
    resize(bytes);
    return { resize, release: () => void resize(0) };
  }

  #findRefusal(caller: string, { bytes, held }: { bytes: number; held: number }): Refused | undefined {
    const share = bytes > SMALL_BYTES ? SHARE_OF_LARGE : 1;
    const more = bytes - held;
    if ((this.#callers.get(caller) ?? 0) + more > this.#callerBytes * share) return "caller";
    return this.#used + more > this.#totalBytes * share ? "total" : undefined;
  }

  #add(caller: string, bytes: number): void {
    this.#used += bytes;
    const used = (this.#callers.get(caller) ?? 0) + bytes;
    if (used === 0) this.#callers.delete(caller);
    else this.#callers.set(caller, used);
  }
}
