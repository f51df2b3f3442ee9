import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { ContainerInspectInfo } from "dockerode";
import { removeContainer } from "./containers.ts";
import type { DockerContext } from "./context.ts";
import { createInDocker } from "./create-call.ts";
import { DOCKER_LABEL } from "./labels.ts";
import { ensureNetwork, findGateway } from "./network.ts";
import { buildNodeImage } from "./node-image.ts";
import { inspectContainer } from "./own-containers.ts";
import { RuntimeFailure, type OpenTarget } from "../engine-runtime.ts";

const METADATA_ADDRESS = "169.254.169.254:80";
const ENTRY = "/probe/main.ts";
const TIMEOUT_MS = 30_000;
const POLL_MS = 200;

/**
 * Connects from a container on the engines' network to a listener of this process, and to the cloud's metadata
 * address. Only such a container tells what engines reach: the rules of a firewall are hidden from a service that is
 * not root, and a rule that can be read may still not match.
 */
export async function probeNetwork(ctx: DockerContext, network: string): Promise<OpenTarget[]> {
  await removeLeftovers(ctx);
  const image = await buildProbeImage(ctx);
  const networkRef = await ensureNetwork(ctx, { network, internalSubnet: null });
  const gateway = await findGateway(ctx, network);
  if (gateway === undefined) throw new RuntimeFailure("refused", `the network ${network} has no gateway`);
  const server = createServer((socket) => socket.destroy()).listen(0, "0.0.0.0");
  try {
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    const targets = [`${gateway}:${port}`, METADATA_ADDRESS];
    const exitCode = await runProbe(ctx, { image, networkRef, targets });
    const reached: OpenTarget[] = [];
    if ((exitCode & 1) !== 0) reached.push("host");
    if ((exitCode & 2) !== 0) reached.push("metadata");
    return reached;
  } finally {
    server.close();
  }
}

async function buildProbeImage({ client }: DockerContext): Promise<string> {
  const source = await readFile(join(import.meta.dirname, "network-probe.ts"));
  const files = new Map([
    [ENTRY, source],
    ["/probe/package.json", Buffer.from('{"type":"module"}')],
  ]);
  return buildNodeImage(client, { name: "enginehouse-probe", files, entry: ENTRY });
}

interface Probe {
  image: string;
  networkRef: string;
  targets: readonly string[];
}

/** Returns the exit code of the probe's container. */
async function runProbe(ctx: DockerContext, { image, networkRef, targets }: Probe): Promise<number> {
  const body = {
    Image: image,
    Cmd: [...targets],
    // Without the label of an engine, so no observation of engines shows it.
    Labels: toProbeLabels(ctx),
    HostConfig: {
      NetworkMode: networkRef,
      CapDrop: ["ALL"],
      SecurityOpt: ["no-new-privileges:true"],
      ReadonlyRootfs: true,
      PidsLimit: 64,
      Memory: 256 * 1024 * 1024,
      MemorySwap: 256 * 1024 * 1024,
    },
  };
  const query = { name: `enginehouse-probe-${randomUUID()}` };
  const { Id: containerId } = (await createInDocker(ctx.client, {
    path: "/containers/create",
    query,
    body,
  })) as { Id: string };
  try {
    // Not as an engine is started: the daemon would restart the probe whenever it ends.
    await ctx.client.call((docker, abortSignal) => docker.getContainer(containerId).start({ abortSignal }));
    return await untilExit(ctx, containerId);
  } finally {
    await removeContainer(ctx, containerId);
  }
}

async function untilExit(ctx: DockerContext, containerId: string): Promise<number> {
  const until = performance.now() + TIMEOUT_MS;
  while (performance.now() < until) {
    const state: ContainerInspectInfo["State"] | undefined = (await inspectContainer(ctx, containerId))
      ?.State;
    if (state === undefined) throw new RuntimeFailure("no_such_container", "the network probe was removed");
    if (state.Status === "exited") return state.ExitCode;
    await sleep(POLL_MS, undefined, { signal: ctx.client.closed });
  }
  throw new RuntimeFailure("refused", `the network probe did not end within ${TIMEOUT_MS} ms`);
}

function toProbeLabels({ instanceId }: DockerContext): Record<string, string> {
  return { [DOCKER_LABEL.instance]: instanceId, [DOCKER_LABEL.probe]: "true" };
}

/** A process that died while it probed left its container. */
async function removeLeftovers(ctx: DockerContext): Promise<void> {
  const label = Object.entries(toProbeLabels(ctx)).map(([name, value]) => `${name}=${value}`);
  const left = await ctx.client.call((docker, abortSignal) =>
    docker.listContainers({ all: true, filters: { label }, abortSignal }),
  );
  for (const { Id } of left) await removeContainer(ctx, Id);
}
