import { randomInt } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:net";

export interface PortRange {
  min: number;
  /** Inclusive. */
  max: number;
}

const SIZE = 6;
const FIRST_PORT = 11_000;
const RANGES = 1_500;
const ATTEMPTS = 50;

/** Some ports in a row that are free: away from the default range, where an installation may be running. */
export async function findPortRange(): Promise<PortRange> {
  for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
    const min = FIRST_PORT + randomInt(RANGES) * SIZE;
    const range = { min, max: min + SIZE - 1 };
    if ((await findTakenPort(range)) === undefined) return range;
  }
  throw new Error("there are no free ports for the engines");
}

export async function findTakenPort({ min, max }: PortRange): Promise<number | undefined> {
  for (let port = min; port <= max; port += 1) {
    if (!(await isFree(port))) return port;
  }
  return undefined;
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer();
  try {
    server.listen(port, "127.0.0.1");
    await once(server, "listening");
    return true;
  } catch {
    // Whatever the system's reason is, this port cannot be had.
    return false;
  } finally {
    server.close();
  }
}
