import type { ContainerStats as DockerStats } from "dockerode";
import type { DockerContext } from "./context.ts";
import { assertOwn } from "./own-containers.ts";
import type { ContainerStats } from "../engine-runtime.ts";

/** All values are zero if the container does not run. */
export async function readStats(ctx: DockerContext, containerId: string): Promise<ContainerStats> {
  await assertOwn(ctx, containerId);
  // Without `one-shot`, the daemon waits 1 s for another sample. Only a CPU percentage needs that sample.
  const stats = await ctx.client.call((docker, abortSignal) => {
    const options = { stream: false as const, "one-shot": true, abortSignal };
    return docker.getContainer(containerId).stats(options);
  });
  return {
    memoryBytes: toMemoryBytes(stats.memory_stats),
    cpuNanoseconds: BigInt(stats.cpu_stats.cpu_usage?.total_usage ?? 0),
    networkBytes: toNetworkBytes(stats.networks),
  };
}

/** The used memory without inactive file cache. cgroup v1 and v2 name this cache differently. */
function toMemoryBytes(memory: Partial<DockerStats["memory_stats"]>): number {
  const details: Partial<Record<string, number>> = { ...memory.stats };
  const cached = details["total_inactive_file"] ?? details["inactive_file"] ?? 0;
  return Math.max(0, (memory.usage ?? 0) - cached);
}

function toNetworkBytes(networks: DockerStats["networks"] | undefined): bigint {
  let total = 0n;
  for (const network of Object.values(networks ?? {})) {
    total += BigInt(network.rx_bytes) + BigInt(network.tx_bytes);
  }
  return total;
}
