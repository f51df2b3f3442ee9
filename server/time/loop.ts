import type { Clock } from "./clock.ts";
import { toErrorMessage } from "../errors.ts";
import type { Log } from "../log.ts";
import type { Metrics } from "../metrics.ts";

export interface LoopOptions {
  name: string;
  intervalMs: number;
  clock: Clock;
  log: Log;
  metrics: Metrics;
  /** The signal aborts when the loop is closed. */
  tick(signal: AbortSignal): Promise<void>;
}

/** A timer whose ticks never overlap. `wake` makes a tick earlier; the interval guarantees it. */
export interface Loop extends AsyncDisposable {
  /** Ends the sleep. During a tick, requests another one right after it. */
  wake(): void;
  /** Aborts the sleep and the signal of the tick, and waits for the tick to end. */
  close(): Promise<void>;
}

/** Makes the first tick at once. If a tick throws, the error is logged and the loop continues. */
export function startLoop(options: LoopOptions): Loop {
  const closing = new AbortController();
  let sleeping = new AbortController();
  let woken = false;
  let failures = 0;

  const report = (error: unknown) => {
    failures += 1;
    // In a long outage, log only failures number 1, 2, 4, 8, … so that the log stays readable.
    if ((failures & (failures - 1)) !== 0) return;
    options.log.error({ loop: options.name, failures, error: toErrorMessage(error) }, "loop tick failed");
  };

  const run = async () => {
    while (!closing.signal.aborted) {
      woken = false;
      sleeping = new AbortController();
      const startedAt = performance.now();
      let failed = false;
      try {
        await options.tick(closing.signal);
        if (failures > 0) options.log.info({ loop: options.name, failures }, "loop works again");
        failures = 0;
      } catch (error) {
        failed = true;
        if (!closing.signal.aborted) report(error);
      }
      const durationMs = performance.now() - startedAt;
      options.metrics.loopTicked({ loop: options.name, durationMs, failed });
      if (woken || closing.signal.aborted) continue;
      await options.clock.sleep(options.intervalMs, sleeping.signal).catch(() => {
        // A wake or the close has ended the sleep.
      });
    }
  };
  const done = run();

  const wake = () => {
    woken = true;
    sleeping.abort();
  };
  const close = async () => {
    closing.abort();
    sleeping.abort();
    await done;
  };
  return { wake, close, [Symbol.asyncDispose]: close };
}
