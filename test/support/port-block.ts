import { once } from "node:events";
import { createServer } from "node:net";

/** The ports of one test run. */
export interface PortBlock extends AsyncDisposable {
  first: number;
}

/** Above the ports of demo and benchmarks, and below the ephemeral ports of Linux. */
const FIRST_PORT = 20_000;
export const PORTS_PER_FILE = 1_000;
/** How many test files run at once: `maxWorkers`. */
export const WORKERS = 4;
const BLOCKS = 3;
/** A run holds a guard port for as long as it uses a block. */
const FIRST_GUARD = FIRST_PORT + BLOCKS * WORKERS * PORTS_PER_FILE;

/** Takes a block that no other run on this machine uses. From the fourth run on, all share the last block. */
export async function takePortBlock(): Promise<PortBlock> {
  for (let index = 0; ; index += 1) {
    const first = FIRST_PORT + index * WORKERS * PORTS_PER_FILE;
    const guard = await holdPort(FIRST_GUARD + index);
    if (guard === undefined && index < BLOCKS - 1) continue;
    return { first, [Symbol.asyncDispose]: async () => guard?.[Symbol.asyncDispose]() };
  }
}

/** Listens on a port until disposed. undefined: the port is taken. */
export async function holdPort(port: number): Promise<AsyncDisposable | undefined> {
  const server = createServer();
  try {
    server.listen({ port, host: "127.0.0.1", exclusive: true });
    await once(server, "listening");
  } catch {
    // The port is taken: the caller tries another one.
    return undefined;
  }
  return {
    [Symbol.asyncDispose]: async () => {
      server.close();
      await once(server, "close");
    },
  };
}
