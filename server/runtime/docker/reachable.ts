import { openDockerClient } from "./client.ts";

const TIMEOUT_MS = 3_000;

/** Whether a Docker daemon answers at this address. undefined: the default socket. */
export async function isDockerReachable(dockerHost: string | undefined): Promise<boolean> {
  try {
    using client = await openDockerClient({ dockerHost, callTimeoutMs: TIMEOUT_MS });
    await client.call((docker) => docker.ping());
    return true;
  } catch {
    // For every reason, no usable daemon answers.
    return false;
  }
}
