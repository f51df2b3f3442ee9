import { setTimeout as sleep } from "node:timers/promises";

const STEP_MS = 10;

/**
 * Bounds the work's duration. Time is counted in steps in which the work can progress too. So a test process that
 * stands still on a loaded machine does not use up the time.
 */
export async function within<T>(ms: number, work: Promise<T>): Promise<T> {
  const done = new AbortController();
  const late = async (): Promise<never> => {
    for (let step = 0; step < ms / STEP_MS; step += 1)
      await sleep(STEP_MS, undefined, { signal: done.signal });
    throw new Error(`no answer within ${ms} ms`);
  };
  const waiting = late();
  waiting.catch(() => {
    // The race below throws the error, unless the work was done in time.
  });
  try {
    return await Promise.race([work, waiting]);
  } finally {
    done.abort();
  }
}
