import { inject } from "vitest";
import type { PortRange } from "../../demo/port-range.ts";
import { holdPort, PORTS_PER_FILE, WORKERS } from "./port-block.ts";

let taken = 0;

/** Loopback ports that no other test gets, and that the system gives to no program that asks for any free port. */
export function takePortRange(size: number): PortRange {
  if (taken + size > PORTS_PER_FILE)
    throw new Error(`a test file has only ${PORTS_PER_FILE} ports: take fewer`);
  const worker = Number(process.env["VITEST_POOL_ID"]) % WORKERS;
  const min = inject("firstPort") + worker * PORTS_PER_FILE + taken;
  taken += size;
  return { min, max: min + size - 1 };
}

/** One such port, checked to be free. */
export async function takePort(): Promise<number> {
  for (;;) {
    const port = takePortRange(1).min;
    const holder = await holdPort(port);
    if (holder === undefined) continue;
    await holder[Symbol.asyncDispose]();
    return port;
  }
}
