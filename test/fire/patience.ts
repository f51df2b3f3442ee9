import { setTimeout as sleep } from "node:timers/promises";

const STEP_MS = 10;

/**
 * Resolves with what the work does, and throws when it takes longer than it may. A process that is held up by others
 * spends no patience meanwhile: time is counted in steps, in each of which the work can go on too.
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
    // Either it is thrown below, or the work was done in time.
  });
  try {
    return await Promise.race([work, waiting]);
  } finally {
    done.abort();
  }
}
