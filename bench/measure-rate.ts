export interface RateInput {
  /** How many work at once. */
  workers: number;
  durationMs: number;
  work: () => Promise<unknown>;
}

/** Does the work again and again for a while. */
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
