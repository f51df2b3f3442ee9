import type { ContainerInspectInfo } from "dockerode";
import { RuntimeFailure } from "../engine-runtime.ts";
import type { DockerContext } from "./context.ts";
import { unlessStatus } from "./failure.ts";
import { DOCKER_LABEL } from "./labels.ts";
import { isObjectName } from "./names.ts";

/** Throws `no_such_container` also for a container of another installation. */
export async function getOwnContainer(
  ctx: DockerContext,
  containerId: string,
): Promise<ContainerInspectInfo> {
  const inspected = await findOwnContainer(ctx, containerId);
  if (inspected !== undefined) return inspected;
  throw new RuntimeFailure("no_such_container", `this installation has no container ${containerId}`);
}

/** undefined: the container does not exist, or belongs to another installation. */
export async function findOwnContainer(
  ctx: DockerContext,
  containerId: string,
): Promise<ContainerInspectInfo | undefined> {
  const inspected = await inspectContainer(ctx, containerId);
  if (inspected?.Config.Labels[DOCKER_LABEL.instance] !== ctx.instanceId) return undefined;
  ctx.owned.add(inspected.Id);
  return inspected;
}

/** Throws as `getOwnContainer` does. Makes no call for a container that is known to be ours. */
export async function assertOwn(ctx: DockerContext, containerId: string): Promise<void> {
  if (!ctx.owned.has(containerId)) await getOwnContainer(ctx, containerId);
}

/** Finds containers of every installation. */
export async function inspectContainer(
  { client }: Pick<DockerContext, "client">,
  idOrName: string,
): Promise<ContainerInspectInfo | undefined> {
  if (!isObjectName(idOrName)) return undefined;
  return client.call((docker, abortSignal) =>
    docker.getContainer(idOrName).inspect({ abortSignal }).catch(unlessStatus(404)),
  );
}
