import type { RuntimeEvent } from "./engine-runtime.ts";

/** Events are hints: a reader that lags behind so far loses the oldest. */
const MAX_WAITING = 1_000;

/** Passes a runtime's own events to whoever reads at that time. */
export class EventHub {
  readonly #readers = new Set<(event: RuntimeEvent) => void>();

  emit(event: RuntimeEvent): void {
    for (const tell of this.#readers) tell(event);
  }

  /** Ends when the signal aborts; throws what `lost` rejects with. */
  async *read(signal: AbortSignal, lost?: Promise<never>): AsyncGenerator<RuntimeEvent, void, undefined> {
    const waiting: RuntimeEvent[] = [];
    let wake = Promise.withResolvers<void>();
    const tell = (event: RuntimeEvent) => {
      waiting.push(event);
      if (waiting.length > MAX_WAITING) waiting.shift();
      wake.resolve();
    };
    const onAbort = () => wake.resolve();
    this.#readers.add(tell);
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
      this.#readers.delete(tell);
      signal.removeEventListener("abort", onAbort);
    }
  }
}
