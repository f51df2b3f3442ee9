import { openDockerRuntime } from "../../server/runtime/docker/runtime.ts";
import type { Service } from "./spawn-service.ts";

/** Kills the service and removes all containers of its installation. */
export async function removeEverything(service: Service): Promise<void> {
  await service.signal("SIGKILL");
  const instanceId = /"instanceId":"([^"]+)"/.exec(service.output())?.[1];
  if (instanceId === undefined) return;
  await using runtime = await openDockerRuntime({
    instanceId,
    marked: false,
    dockerHost: process.env["DOCKER_HOST"],
    log: { info: () => {}, warn: () => {} },
  });
  await runtime.removeInstance();
}
