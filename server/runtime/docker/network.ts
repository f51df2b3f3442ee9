import type { NetworkInspectInfo } from "dockerode";
import type { DockerContext } from "./context.ts";
import { unlessStatus } from "./failure.ts";
import { DOCKER_LABEL } from "./labels.ts";
import { RuntimeFailure } from "../engine-runtime.ts";

const ICC_OPTION = "com.docker.network.bridge.enable_icc";
const UNPUBLISHED_DRIVERS = ["host", "null", "macvlan", "ipvlan"];

/**
 * Creates the engines' network if it is missing, without traffic between containers.
 *
 * @returns the network's name, or the oldest one's id if several networks have the name.
 */
export async function ensureNetwork(ctx: DockerContext, name: string): Promise<string> {
  const existing = await ctx.networkLocks.acquire(name, async () => {
    const found = await findNetworks(ctx, name);
    return found.length > 0 ? found : createNetwork(ctx, name);
  });
  const [oldest] = existing;
  if (oldest !== undefined) assertPublishing(oldest);
  if (oldest !== undefined && oldest.Options?.[ICC_OPTION] !== "false") {
    ctx.log.warn({ network: name }, "containers on the engines' network can reach each other");
  }
  return existing.length > 1 && oldest !== undefined ? oldest.Id : name;
}

/** On such a network a container starts, but the daemon publishes no port of it. So no boot would ever end. */
function assertPublishing({ Name: name, Driver: driver, Internal: isInternal }: NetworkInspectInfo): void {
  const problem = UNPUBLISHED_DRIVERS.includes(driver) ? `has the driver ${driver}` : "is internal";
  if (!isInternal && !UNPUBLISHED_DRIVERS.includes(driver)) return;
  const remedy =
    "remove the network, so that the service makes it again, or name another ORCH_ENGINE_NETWORK";
  throw new RuntimeFailure(
    "refused",
    `the network ${name} ${problem}, so the daemon publishes no port of an engine: ${remedy}`,
  );
}

/** Keeps networks that others use or created. */
export async function removeOwnNetworks(ctx: DockerContext): Promise<void> {
  const label = [`${DOCKER_LABEL.instance}=${ctx.instanceId}`];
  const networks = await ctx.client.call((docker, abortSignal) =>
    docker.listNetworks({ filters: { label }, abortSignal }),
  );
  for (const { Id } of networks) await removeNetwork(ctx, Id, unlessStatus(403, 404, 409));
}

/**
 * Before Engine 25, two creates at once can make two networks of one name, in spite of `CheckDuplicate`. So this lists
 * the networks again after the create, and removes its own network unless that is the oldest.
 */
async function createNetwork(ctx: DockerContext, name: string): Promise<NetworkInspectInfo[]> {
  const { client, instanceId, log } = ctx;
  const options = {
    Name: name,
    Driver: "bridge",
    CheckDuplicate: true,
    Options: { [ICC_OPTION]: "false" },
    Labels: { [DOCKER_LABEL.instance]: instanceId },
  };
  const created = await client.call((docker, abortSignal) =>
    // 409: another replica created the network first.
    docker.createNetwork({ ...options, abortSignal }).catch(unlessStatus(409)),
  );
  const found = await findNetworks(ctx, name);
  if (created === undefined) return found;
  if (found[0] === undefined || found[0].Id === created.id) {
    log.info({ network: name }, "created the engines' network");
    return found;
  }
  await removeNetwork(ctx, created.id, unlessStatus(403, 404));
  return found.filter(({ Id }) => Id !== created.id);
}

async function removeNetwork({ client }: DockerContext, id: string, onError: (error: unknown) => undefined) {
  await client.call((docker, abortSignal) => docker.getNetwork(id).remove({ abortSignal }).catch(onError));
}

/** The oldest comes first, so that all replicas choose the same. The daemon's filter also matches parts of names. */
async function findNetworks({ client }: DockerContext, name: string): Promise<NetworkInspectInfo[]> {
  const listed = await client.call((docker, abortSignal) =>
    docker.listNetworks({ filters: { name: [name] }, abortSignal }),
  );
  const matching = listed.filter((network) => network.Name === name);
  return matching.sort((a, b) => a.Created.localeCompare(b.Created) || a.Id.localeCompare(b.Id));
}
