import type { Clock } from "./clock.ts";
import { toErrorMessage } from "../errors.ts";
import type { Log } from "../log.ts";

export interface LoopOptions {
  name: string;
  intervalMs: number;
  clock: Clock;
  log: Log;
  /** Gets a signal that aborts when the loop is closed. */
  tick(signal: AbortSignal): Promise<void>;
}

/** A timer that never overlaps itself. Waking it is a hint; the interval is the truth. */
export interface Loop extends AsyncDisposable {
  /** Ends the nap; during a tick, asks for one more right after it. */
  wake(): void;
  /** Aborts the nap and the tick's signal, and waits for the tick to end. */
  close(): Promise<void>;
}

/** Starts ticking at once. A tick that throws is logged, and the loop lives. */
export function startLoop(options: LoopOptions): Loop {
  const closing = new AbortController();
  let nap = new AbortController();
  let woken = false;
  let failures = 0;

  const report = (error: unknown) => {
    failures += 1;
    // Of an outage that lasts, every power of two is told: the log stays readable, and the count says how long.
    if ((failures & (failures - 1)) !== 0) return;
    options.log.error({ loop: options.name, failures, error: toErrorMessage(error) }, "loop tick failed");
  };

  const run = async () => {
    while (!closing.signal.aborted) {
      woken = false;
      nap = new AbortController();
      try {
        await options.tick(closing.signal);
        if (failures > 0) options.log.info({ loop: options.name, failures }, "loop works again");
        failures = 0;
      } catch (error) {
        if (!closing.signal.aborted) report(error);
      }
      if (woken || closing.signal.aborted) continue;
      await options.clock.sleep(options.intervalMs, nap.signal).catch(() => {
        // The nap was cut short on purpose, by a wake or by the close.
      });
    }
  };
  const done = run();

  const wake = () => {
    woken = true;
    nap.abort();
  };
  const close = async () => {
    closing.abort();
    nap.abort();
    await done;
  };
  return { wake, close, [Symbol.asyncDispose]: close };
}
