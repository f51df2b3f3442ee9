import { randomInt } from "node:crypto";
import { once } from "node:events";
import { createServer, type Server } from "node:net";

export interface PortRange {
  min: number;
  /** Inclusive. */
  max: number;
}

const SIZE = 6;
const FIRST_PORT = 11_000;
/** The range and its guard port. */
const STEP = SIZE + 1;
const RANGES = 1_280;
const ATTEMPTS = 50;

/**
 * Finds free ports in a row, outside the default range, which another installation may use. This process listens on the
 * guard port before them until it ends, so that no other process that calls this function gets the same range.
 */
export async function findPortRange(): Promise<PortRange> {
  for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
    const guardPort = FIRST_PORT + randomInt(RANGES) * STEP;
    const guard = await tryListen(guardPort);
    if (guard === undefined) continue;
    const range = { min: guardPort + 1, max: guardPort + SIZE };
    if ((await findTakenPort(range)) === undefined) {
      guard.unref();
      return range;
    }
    guard.close();
  }
  throw new Error(
    `found no ${SIZE} free ports in a row after ${ATTEMPTS} attempts: free some ports above ${FIRST_PORT}`,
  );
}

export async function findTakenPort({ min, max }: PortRange): Promise<number | undefined> {
  for (let port = min; port <= max; port += 1) {
    const server = await tryListen(port);
    if (server === undefined) return port;
    server.close();
  }
  return undefined;
}

async function tryListen(port: number): Promise<Server | undefined> {
  const server = createServer();
  try {
    server.listen(port, "127.0.0.1");
    await once(server, "listening");
    return server;
  } catch {
    // For any error, this port is not available.
    return undefined;
  }
}
