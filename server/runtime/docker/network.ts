import { createHash } from "node:crypto";
import type { NetworkInspectInfo } from "dockerode";
import type { DockerContext } from "./context.ts";
import { toDockerFailure, toHttpStatus, unlessStatus } from "./failure.ts";
import { toGatewayAddress } from "./internal-address.ts";
import { DOCKER_LABEL } from "./labels.ts";
import { RuntimeFailure, type ContainerSpec } from "../engine-runtime.ts";

const ICC_OPTION = "com.docker.network.bridge.enable_icc";
const BRIDGE_NAME_OPTION = "com.docker.network.bridge.name";
/** Rules of a firewall recognise engines by the names of their bridges: deploy/engine-firewall.sh. */
const BRIDGE_PREFIX = "eh-";
const UNPUBLISHED_DRIVERS = ["host", "null", "macvlan", "ipvlan"];
/** Another create was faster, or a foreign network has the subnet. Only a listing can tell. */
const TAKEN = /same bridge name|overlaps with other/i;

type NetworkSpec = Pick<ContainerSpec, "network" | "internalSubnet">;

/**
 * Creates the engines' network if it is missing, without traffic between containers.
 *
 * @returns the network's name, or the oldest one's id if several networks have the name.
 */
export async function ensureNetwork(ctx: DockerContext, spec: NetworkSpec): Promise<string> {
  const name = spec.network;
  const existing = await ctx.networkLocks.acquire(name, async () => {
    const found = await findNetworks(ctx, name);
    return found.length > 0 ? found : createNetwork(ctx, spec);
  });
  const [oldest] = existing;
  if (oldest !== undefined) assertUsable(oldest, spec);
  if (oldest !== undefined && oldest.Options?.[ICC_OPTION] !== "false") {
    ctx.log.warn({ network: name }, "containers on the engines' network can reach each other");
  }
  return existing.length > 1 && oldest !== undefined ? oldest.Id : name;
}

/** On another network a container starts, but the service cannot reach it, or the container reaches what it should not. */
function assertUsable(network: NetworkInspectInfo, { internalSubnet }: NetworkSpec): void {
  const problem =
    internalSubnet === null ? findPublishingProblem(network) : findInternalProblem(network, internalSubnet);
  if (problem === undefined) return;
  const remedy =
    "remove the network, so that the service makes it again, or name another ORCH_ENGINE_NETWORK";
  throw new RuntimeFailure("refused", `the network ${network.Name} ${problem}: ${remedy}`);
}

function findPublishingProblem({ Driver: driver, Internal: isInternal }: NetworkInspectInfo) {
  const why = "so the daemon publishes no port of an engine";
  if (UNPUBLISHED_DRIVERS.includes(driver)) return `has the driver ${driver}, ${why}`;
  return isInternal ? `is internal, ${why}` : undefined;
}

function findInternalProblem(network: NetworkInspectInfo, internalSubnet: string) {
  if (network.Driver !== "bridge") return `has the driver ${network.Driver} and is no bridge`;
  if (!network.Internal) return "has a way out, and the product's policy allows none";
  const subnets = (network.IPAM?.Config ?? []).map(({ Subnet: subnet }) => subnet);
  if (subnets.includes(internalSubnet)) return undefined;
  return `has the subnet ${subnets.join(" and ")}, and ORCH_ENGINE_INTERNAL_SUBNET is ${internalSubnet}`;
}

/** undefined: the network does not exist, or has no address on this host. */
export async function findGateway(ctx: DockerContext, name: string): Promise<string | undefined> {
  const [oldest] = await findNetworks(ctx, name);
  return oldest?.IPAM?.Config?.find(({ Gateway: gateway }) => gateway?.includes("."))?.Gateway;
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
async function createNetwork(ctx: DockerContext, spec: NetworkSpec): Promise<NetworkInspectInfo[]> {
  const { client, log } = ctx;
  const name = spec.network;
  let taken: RuntimeFailure | undefined;
  const onRefused = (error: unknown): undefined => {
    // 409: another replica created the network first.
    if (toHttpStatus(error) === 409) return;
    taken = toDockerFailure(error);
    if (!TAKEN.test(taken.message)) throw taken;
  };
  const created = await client.call((docker, abortSignal) =>
    docker.createNetwork({ ...toNetworkOptions(ctx, spec), abortSignal }).catch(onRefused),
  );
  const found = await findNetworks(ctx, name);
  if (created === undefined) {
    if (found.length === 0 && taken !== undefined) throw toNotCreated(spec, taken);
    return found;
  }
  if (found[0] === undefined || found[0].Id === created.id) {
    log.info({ network: name }, "created the engines' network");
    return found;
  }
  await removeNetwork(ctx, created.id, unlessStatus(403, 404));
  return found.filter(({ Id }) => Id !== created.id);
}

function toNotCreated({ network, internalSubnet }: NetworkSpec, { message }: RuntimeFailure): RuntimeFailure {
  const remedy = internalSubnet === null ? "call again" : "set ORCH_ENGINE_INTERNAL_SUBNET to a free /16";
  return new RuntimeFailure("refused", `the network ${network} cannot be created (${message}): ${remedy}`);
}

function toNetworkOptions({ instanceId }: DockerContext, { network, internalSubnet }: NetworkSpec) {
  // The name of a Linux interface has at most 15 characters.
  const digest = createHash("sha256").update(`${instanceId} ${network}`).digest("hex").slice(0, 10);
  return {
    Name: network,
    Driver: "bridge",
    CheckDuplicate: true,
    Options: { [ICC_OPTION]: "false", [BRIDGE_NAME_OPTION]: `${BRIDGE_PREFIX}${digest}` },
    Labels: { [DOCKER_LABEL.instance]: instanceId },
    ...(internalSubnet !== null && {
      Internal: true,
      IPAM: {
        Driver: "default",
        Config: [{ Subnet: internalSubnet, Gateway: toGatewayAddress(internalSubnet) }],
      },
    }),
  };
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
