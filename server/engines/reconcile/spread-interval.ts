/** Up to a tenth earlier or later, so that engines that began together are not probed together for ever. */
export function spreadInterval(intervalMs: number): number {
  return intervalMs * (0.9 + Math.random() * 0.2);
}
