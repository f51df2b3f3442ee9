import { once } from "node:events";
import { createServer } from "node:net";

/**
 * A free loopback port from below the range that the system hands out by itself, so that nobody who asks for
 * "any port" takes it between here and its use.
 */
export async function pickPort(): Promise<number> {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 10_000);
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
