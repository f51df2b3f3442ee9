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
/** One more port than is given. */
const STEP = SIZE + 1;
const RANGES = 1_280;
const ATTEMPTS = 50;

/**
 * Some ports in a row that are free: away from the default range, where an installation may be running. Until this
 * process ends it keeps the port before them, so that no other that asks here is given the same.
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
  throw new Error("there are no free ports for the engines");
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
    // Whatever the system's reason is, this port cannot be had.
    return undefined;
  }
}
