import { setTimeout as sleep } from "node:timers/promises";
import type { ContainerCreateOptions, ContainerInspectInfo } from "dockerode";
import type { DockerContext } from "./context.ts";
import { createInDocker } from "./create-call.ts";
import { toCreateOptions } from "./create-options.ts";
import { redactFailure, toDockerFailure } from "./failure.ts";
import { DOCKER_LABEL } from "./labels.ts";
import { ensureNetwork } from "./network.ts";
import { inspectContainer } from "./own-containers.ts";
import { refuseRoot } from "./refuse-root.ts";
import { ensureVolume } from "./volumes.ts";
import {
  RuntimeFailure,
  toContainerName,
  type ContainerSpec,
  type EnsuredContainer,
} from "../engine-runtime.ts";

const ADOPT_RETRY_MS = 50;

export async function ensureContainer(ctx: DockerContext, spec: ContainerSpec): Promise<EnsuredContainer> {
  try {
    return await ensureOnNetwork(ctx, spec);
  } catch (error) {
    // The network was removed after it was found. Now it is made again.
    if (error instanceof RuntimeFailure && error.kind === "unfit") return ensureOnNetwork(ctx, spec);
    throw error;
  }
}

async function ensureOnNetwork(ctx: DockerContext, spec: ContainerSpec): Promise<EnsuredContainer> {
  const name = toContainerName(spec);
  const [networkRef] = await Promise.all([
    ensureNetwork(ctx, spec),
    refuseRoot(ctx, spec),
    ensureVolume(ctx, spec.volumeName, spec.engineId),
  ]);
  const body = toCreateOptions({ instanceId: ctx.instanceId, spec, networkRef });
  try {
    const containerId = await createContainer(ctx, name, body);
    ctx.owned.add(containerId);
    ctx.unstarted.set(containerId, performance.now());
    return { containerId, created: true };
  } catch (error) {
    const failure = toDockerFailure(error);
    if (failure.kind === "conflict") {
      return { containerId: await adoptContainer(ctx, name, spec), created: false };
    }
    throw redactFailure(failure, Object.values(spec.environment));
  }
}

async function adoptContainer(ctx: DockerContext, name: string, spec: ContainerSpec): Promise<string> {
  const until = performance.now() + ctx.client.callTimeoutMs;
  for (;;) {
    const found = await inspectContainer(ctx, name);
    if (found !== undefined) return toAdopted(ctx, spec, found);
    // The daemon reserves a name before it shows the container, so another create may still be running.
    if (performance.now() >= until) {
      throw new RuntimeFailure("conflict", `the container name ${name} is taken, but no container has it`);
    }
    await sleep(ADOPT_RETRY_MS);
  }
}

function toAdopted(ctx: DockerContext, spec: ContainerSpec, found: ContainerInspectInfo): string {
  const { Labels: labels } = found.Config;
  if (labels[DOCKER_LABEL.instance] !== ctx.instanceId || labels[DOCKER_LABEL.engine] !== spec.engineId) {
    const name = toContainerName(spec);
    const message = `the container name ${name} is taken by a container of another installation or engine`;
    throw new RuntimeFailure("conflict", message);
  }
  ctx.owned.add(found.Id);
  return found.Id;
}

async function createContainer(
  { client }: DockerContext,
  name: string,
  body: ContainerCreateOptions,
): Promise<string> {
  const answer = await createInDocker(client, { path: "/containers/create", query: { name }, body });
  if (typeof answer === "object" && answer !== null && "Id" in answer && typeof answer.Id === "string") {
    return answer.Id;
  }
  throw new RuntimeFailure("refused", "the Docker daemon's answer to create has no container id");
}
