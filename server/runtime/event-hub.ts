import type { RuntimeEvent } from "./engine-runtime.ts";

/** Events only shorten waits, so a slow reader loses the oldest ones beyond this number. */
const MAX_WAITING = 1_000;

/** Passes a runtime's events to all present readers. */
export class EventHub {
  readonly #readers = new Set<(event: RuntimeEvent) => void>();

  emit(event: RuntimeEvent): void {
    for (const receive of this.#readers) receive(event);
  }

  /** Ends when the signal aborts. Throws the error that `lost` rejects with. */
  async *read(signal: AbortSignal, lost?: Promise<never>): AsyncGenerator<RuntimeEvent, void, undefined> {
    const waiting: RuntimeEvent[] = [];
    let wake = Promise.withResolvers<void>();
    const receive = (event: RuntimeEvent) => {
      waiting.push(event);
      if (waiting.length > MAX_WAITING) waiting.shift();
      wake.resolve();
    };
    const onAbort = () => wake.resolve();
    this.#readers.add(receive);
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      while (!signal.aborted) {
        const event = waiting.shift();
        if (event !== undefined) {
          yield event;
          continue;
        }
        await (lost === undefined ? wake.promise : Promise.race([wake.promise, lost]));
        wake = Promise.withResolvers<void>();
      }
    } finally {
      this.#readers.delete(receive);
      signal.removeEventListener("abort", onAbort);
    }
  }
}
