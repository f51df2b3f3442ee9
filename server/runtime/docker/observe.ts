import type { DockerContext } from "./context.ts";
import { toOwnFilter } from "./labels.ts";
import { toObservation } from "./observation.ts";
import { findOwnContainer } from "./own-containers.ts";
import type { ContainerObservation } from "../engine-runtime.ts";

/** How many containers are inspected at once. More would delay other calls to the daemon. */
const INSPECTS_AT_ONCE = 8;

/** Newest incarnation first. Without `engineId`, the containers of all engines of this installation. */
export async function observeContainers(
  ctx: DockerContext,
  engineId?: string,
): Promise<ContainerObservation[]> {
  const listed = await ctx.client.call((docker, abortSignal) =>
    docker.listContainers({ all: true, filters: toOwnFilter(ctx.instanceId, engineId), abortSignal }),
  );
  const waiting = listed.map(({ Id }) => Id);
  const observations: ContainerObservation[] = [];
  const inspectNext = async () => {
    for (let id = waiting.pop(); id !== undefined; id = waiting.pop()) {
      const inspected = await findOwnContainer(ctx, id);
      // The container may have been removed since the listing.
      if (inspected !== undefined) observations.push(toObservation(inspected));
    }
  };
  await Promise.all(Array.from({ length: INSPECTS_AT_ONCE }, inspectNext));
  return observations.sort((a, b) => b.incarnation - a.incarnation);
}
