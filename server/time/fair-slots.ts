/** The right to do a piece of work now. It ends once, however often it is given back. */
export interface Slot extends Disposable {
  /** Gives the slot to the next in line. The work may go on without it. */
  release(): void;
}

interface Waiting {
  take(slot: Slot): void;
}

/**
 * Bounds how many pieces of work are done at once, fairly between keys: free slots go round robin to the keys that wait,
 * and within a key to the first in line. So a key with a thousand pieces of work delays another key's piece by at most
 * one of its own.
 */
export class FairSlots {
  #free: number;
  /** Keys that wait. A map keeps the order of insertion: the first key is the next to get a slot. */
  readonly #waiting = new Map<string, Waiting[]>();

  constructor(count: number) {
    this.#free = count;
  }

  /** undefined: no slot is free. */
  tryTake(): Slot | undefined {
    if (this.#free === 0) return undefined;
    this.#free -= 1;
    return this.#toSlot();
  }

  /** Resolves once a slot is free. Rejects with the signal's reason, if the signal aborts before. */
  async take(key: string, signal?: AbortSignal): Promise<Slot> {
    signal?.throwIfAborted();
    const free = this.tryTake();
    if (free !== undefined) return free;
    const given = Promise.withResolvers<Slot>();
    const waiting = { take: given.resolve };
    const onAbort = () => {
      this.#remove(key, waiting);
      given.reject(signal?.reason);
    };
    signal?.addEventListener("abort", onAbort, { once: true });
    const line = this.#waiting.get(key);
    if (line === undefined) this.#waiting.set(key, [waiting]);
    else line.push(waiting);
    try {
      return await given.promise;
    } finally {
      signal?.removeEventListener("abort", onAbort);
    }
  }

  #toSlot(): Slot {
    let isHeld = true;
    const release = () => {
      if (!isHeld) return;
      isHeld = false;
      this.#giveAway();
    };
    return { release, [Symbol.dispose]: release };
  }

  #giveAway(): void {
    const [next] = this.#waiting;
    if (next === undefined) {
      this.#free += 1;
      return;
    }
    const [key, line] = next;
    const first = line.shift();
    // The key goes to the end of the round.
    this.#waiting.delete(key);
    if (line.length > 0) this.#waiting.set(key, line);
    first?.take(this.#toSlot());
  }

  #remove(key: string, waiting: Waiting): void {
    const line = this.#waiting.get(key)?.filter((other) => other !== waiting) ?? [];
    if (line.length > 0) this.#waiting.set(key, line);
    else this.#waiting.delete(key);
  }
}
