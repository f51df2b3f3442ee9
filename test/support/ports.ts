import { inject } from "vitest";
import type { PortRange } from "../../demo/port-range.ts";
import { holdPort, PORTS_PER_FILE, WORKERS } from "./port-block.ts";

let taken = 0;

/**
 * Loopback ports that nobody else gets: no test that runs at the same time, none of this file, and nobody who asks
 * the system for any port.
 */
export function takePortRange(size: number): PortRange {
  if (taken + size > PORTS_PER_FILE) throw new Error(`a file of tests has ${PORTS_PER_FILE} ports`);
  const worker = Number(process.env["VITEST_POOL_ID"]) % WORKERS;
  const min = inject("firstPort") + worker * PORTS_PER_FILE + taken;
  taken += size;
  return { min, max: min + size - 1 };
}

/** One such port that is free, too. */
export async function takePort(): Promise<number> {
  for (;;) {
    const port = takePortRange(1).min;
    const holder = await holdPort(port);
    if (holder === undefined) continue;
    await holder[Symbol.asyncDispose]();
    return port;
  }
}
