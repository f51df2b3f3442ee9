import { once } from "node:events";
import { createServer } from "node:net";

/** The ports of one run of the tests. */
export interface PortBlock extends AsyncDisposable {
  first: number;
}

/** Above those of the demo and of the benchmarks, and below those that Linux hands out by itself. */
const FIRST_PORT = 20_000;
export const PORTS_PER_FILE = 1_000;
/** Files that run at once: `maxWorkers`. */
export const WORKERS = 4;
const BLOCKS = 3;
/** Held by the run that has the block. */
const FIRST_GUARD = FIRST_PORT + BLOCKS * WORKERS * PORTS_PER_FILE;

/** A block that no other run on this machine has; of the runs after the third each has the last one's. */
export async function takePortBlock(): Promise<PortBlock> {
  for (let index = 0; ; index += 1) {
    const first = FIRST_PORT + index * WORKERS * PORTS_PER_FILE;
    const guard = await holdPort(FIRST_GUARD + index);
    if (guard === undefined && index < BLOCKS - 1) continue;
    return { first, [Symbol.asyncDispose]: async () => guard?.[Symbol.asyncDispose]() };
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
