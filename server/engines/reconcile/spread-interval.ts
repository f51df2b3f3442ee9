/** Varies an interval by up to a tenth. So engines that started together are not probed together for ever. */
export function spreadInterval(intervalMs: number): number {
  return intervalMs * (0.9 + Math.random() * 0.2);
}
