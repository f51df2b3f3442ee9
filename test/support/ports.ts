import { once } from "node:events";
import { createServer } from "node:net";
import type { PortRange } from "../../demo/port-range.ts";

/** Above those of the demo and of the benchmarks, and below those that Linux hands out by itself. */
const FIRST_PORT = 20_000;
const WORKERS = 12;
const PORTS_PER_FILE = 1_000;

const pool = (Number(process.env["VITEST_POOL_ID"] ?? "0") % WORKERS) * PORTS_PER_FILE;
let taken = 0;

/**
 * Loopback ports that nobody else gets: no test that runs at the same time, none of this file, and nobody who asks
 * the system for any port.
 */
export function takePortRange(size: number): PortRange {
  if (taken + size > PORTS_PER_FILE) throw new Error(`a file of tests has ${PORTS_PER_FILE} ports`);
  const min = FIRST_PORT + pool + taken;
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

/** Keeps a port taken until it is disposed; undefined when somebody else has it. */
export async function holdPort(port: number): Promise<AsyncDisposable | undefined> {
  const server = createServer();
  try {
    server.listen({ port, host: "127.0.0.1", exclusive: true });
    await once(server, "listening");
  } catch {
    // Taken: the caller asks for another one.
    return undefined;
  }
  return {
    [Symbol.asyncDispose]: async () => {
      server.close();
      await once(server, "close");
    },
  };
}
