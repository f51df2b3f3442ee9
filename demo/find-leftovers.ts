import { existsSync } from "node:fs";
import { openDockerClient } from "../server/runtime/docker/client.ts";
import { DOCKER_LABEL } from "../server/runtime/docker/labels.ts";
import { findTakenPort, type PortRange } from "./port-range.ts";
import { listProcessesOf } from "./processes-of.ts";
import type { Traces } from "./traces.ts";

const CALL_TIMEOUT_MS = 10_000;

/** Everything of the demo that still exists after the clean-up, one line each. */
export async function findLeftovers(traces: Traces, ports: PortRange): Promise<string[]> {
  const processes = await listProcessesOf(traces.dataDir);
  const takenPort = await findTakenPort(ports);
  return [
    ...processes.map(({ pid, command }) => `process ${pid}: ${command}`),
    ...(existsSync(traces.dataDir) ? [`directory ${traces.dataDir}`] : []),
    ...(takenPort === undefined ? [] : [`port ${takenPort}`]),
    ...(await findInDocker(traces)),
  ];
}

async function findInDocker({ runtime, service }: Traces): Promise<string[]> {
  if (runtime?.kind !== "docker" || service?.instanceId === undefined) return [];
  using client = await openDockerClient({
    dockerHost: runtime.dockerHost,
    callTimeoutMs: CALL_TIMEOUT_MS,
  });
  const filters = { label: [`${DOCKER_LABEL.instance}=${service.instanceId}`] };
  const containers = await client.call((docker) => docker.listContainers({ all: true, filters }));
  const { Volumes: volumes } = await client.call((docker) => docker.listVolumes({ filters }));
  const networks = await client.call((docker) => docker.listNetworks({ filters }));
  return [
    ...containers.map(({ Id }) => `container ${Id}`),
    ...volumes.map(({ Name }) => `volume ${Name}`),
    ...networks.map(({ Name }) => `network ${Name}`),
  ];
}
