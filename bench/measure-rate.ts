export interface RateInput {
  /** The number of calls of `work` that run at once. */
  workers: number;
  durationMs: number;
  work: () => Promise<unknown>;
}

/** Repeats the work for `durationMs` and counts the calls that ended. */
export async function measureRate({
  workers,
  durationMs,
  work,
}: RateInput): Promise<{ count: number; perSecond: number }> {
  const begin = performance.now();
  let count = 0;
  const repeat = async () => {
    while (performance.now() - begin < durationMs) {
      await work();
      count += 1;
    }
  };
  await Promise.all(Array.from({ length: workers }, repeat));
  return { count, perSecond: (count * 1_000) / (performance.now() - begin) };
}
