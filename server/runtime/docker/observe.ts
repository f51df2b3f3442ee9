import { findOwnContainer } from "./containers.ts";
import type { DockerContext } from "./context.ts";
import { toOwnFilter } from "./labels.ts";
import { toObservation } from "./observation.ts";
import type { ContainerObservation } from "../engine-runtime.ts";

/** How many containers are inspected at once: enough to hide the latency, too few to crowd out other calls. */
const INSPECTS_AT_ONCE = 8;

/** Newest incarnation first. Without `engineId` those of all engines of this instance. */
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
      // One that went away since the listing is clearly none.
      if (inspected !== undefined) observations.push(toObservation(inspected));
    }
  };
  await Promise.all(Array.from({ length: INSPECTS_AT_ONCE }, inspectNext));
  return observations.sort((a, b) => b.incarnation - a.incarnation);
}
