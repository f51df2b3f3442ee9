import { openDockerClient } from "./client.ts";

const PATIENCE_MS = 3_000;

/** Whether a Docker daemon answers there; undefined is the usual socket. */
export async function isDockerReachable(dockerHost: string | undefined): Promise<boolean> {
  try {
    const client = await openDockerClient({ dockerHost, callTimeoutMs: PATIENCE_MS });
    try {
      await client.call((docker) => docker.ping());
      return true;
    } finally {
      client[Symbol.dispose]();
    }
  } catch {
    // Whatever the reason, nothing that could be used answers.
    return false;
  }
}
