import type { NetworkInspectInfo } from "dockerode";
import type { DockerContext } from "./context.ts";
import { unlessStatus } from "./failure.ts";
import { DOCKER_LABEL } from "./labels.ts";

const ICC_OPTION = "com.docker.network.bridge.enable_icc";

/**
 * Makes the engines' network when it is missing, closed between containers.
 *
 * @returns how to refer to it: by name, or by id where two networks share the name.
 */
export async function ensureNetwork(ctx: DockerContext, name: string): Promise<string> {
  const existing = await ctx.networkLocks.acquire(name, async () => {
    const found = await findNetworks(ctx, name);
    return found.length > 0 ? found : makeNetwork(ctx, name);
  });
  const [oldest] = existing;
  if (oldest !== undefined && oldest.Options?.[ICC_OPTION] !== "false") {
    ctx.log.warn({ network: name }, "containers on the engines' network can reach each other");
  }
  return existing.length > 1 && oldest !== undefined ? oldest.Id : name;
}

/** Leaves a network that others use or made. */
export async function removeOwnNetworks(ctx: DockerContext): Promise<void> {
  const label = [`${DOCKER_LABEL.instance}=${ctx.instanceId}`];
  const networks = await ctx.client.call((docker, abortSignal) =>
    docker.listNetworks({ filters: { label }, abortSignal }),
  );
  for (const network of networks) {
    await ctx.client.call((docker, abortSignal) =>
      docker
        .getNetwork(network.Id)
        .remove({ abortSignal })
        .catch(unlessStatus(403, 404, 409)),
    );
  }
}

/**
 * Daemons before Engine 25 may make two networks of one name, even when told not to, where two create it at
 * once. So whoever created one looks again, and takes his own away unless it is the oldest.
 */
async function makeNetwork(ctx: DockerContext, name: string): Promise<NetworkInspectInfo[]> {
  const { client, instanceId, log } = ctx;
  const options = {
    Name: name,
    Driver: "bridge",
    CheckDuplicate: true,
    Options: { [ICC_OPTION]: "false" },
    Labels: { [DOCKER_LABEL.instance]: instanceId },
  };
  const created = await client.call((docker, abortSignal) =>
    // 409: somebody else was quicker, which is as well.
    docker.createNetwork({ ...options, abortSignal }).catch(unlessStatus(409)),
  );
  const found = await findNetworks(ctx, name);
  if (created === undefined) return found;
  if (found[0] === undefined || found[0].Id === created.id) {
    log.info({ network: name }, "made the engines' network");
    return found;
  }
  await client.call((docker, abortSignal) =>
    docker.getNetwork(created.id).remove({ abortSignal }).catch(unlessStatus(403, 404)),
  );
  return found.filter(({ Id }) => Id !== created.id);
}

/** The daemon's name filter matches parts of names. The oldest comes first, so that all choose the same. */
async function findNetworks({ client }: DockerContext, name: string): Promise<NetworkInspectInfo[]> {
  const listed = await client.call((docker, abortSignal) =>
    docker.listNetworks({ filters: { name: [name] }, abortSignal }),
  );
  const matching = listed.filter((network) => network.Name === name);
  return matching.sort((a, b) => a.Created.localeCompare(b.Created) || a.Id.localeCompare(b.Id));
}
