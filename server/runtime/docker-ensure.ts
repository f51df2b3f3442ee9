import { setTimeout as sleep } from "node:timers/promises";
import type { ContainerCreateOptions } from "dockerode";
import { toContainerName } from "./container-name.ts";
import { findOwnContainer } from "./docker-containers.ts";
import type { DockerContext } from "./docker-context.ts";
import { toCreateOptions } from "./docker-create-options.ts";
import { redactFailure, toDockerFailure } from "./docker-failure.ts";
import { DOCKER_LABEL } from "./docker-labels.ts";
import { ensureNetwork } from "./docker-network.ts";
import { ensureVolume } from "./docker-volumes.ts";
import { RuntimeFailure } from "./engine-runtime.ts";
import type { ContainerSpec } from "./engine-runtime.ts";

export async function ensureContainer(
  ctx: DockerContext,
  spec: ContainerSpec,
): Promise<{ containerId: string }> {
  const name = toContainerName(spec);
  const networkRef = await ensureNetwork(ctx, spec.network);
  await ensureVolume(ctx, spec.volumeName, spec.engineId);
  const body = toCreateOptions({ instanceId: ctx.instanceId, spec, networkRef });
  try {
    const containerId = await createContainer(ctx, name, body);
    ctx.owned.add(containerId);
    return { containerId };
  } catch (error) {
    const failure = toDockerFailure(error);
    if (failure.kind === "conflict") return { containerId: await adoptContainer(ctx, name, spec) };
    throw redactFailure(failure, Object.values(spec.environment));
  }
}

async function adoptContainer(ctx: DockerContext, name: string, spec: ContainerSpec): Promise<string> {
  const until = Date.now() + ADOPT_PATIENCE_MS;
  for (;;) {
    const found = await findOwnContainer(ctx, name);
    if (found?.Config.Labels[DOCKER_LABEL.engine] === spec.engineId) return found.Id;
    // The daemon reserves a name before its container can be seen: another create may be under way.
    if (found !== undefined || Date.now() > until) {
      throw new RuntimeFailure(
        "conflict",
        `the container name ${name} is taken by something that is not ours`,
      );
    }
    await sleep(ADOPT_RETRY_MS);
  }
}

const ADOPT_PATIENCE_MS = 3_000;
const ADOPT_RETRY_MS = 50;

/**
 * Not `docker.createContainer`: that one puts the whole body into the URL as well, and with it the provider
 * keys in the environment, where the daemon's debug log and each proxy would keep them.
 */
async function createContainer(
  { client }: DockerContext,
  name: string,
  body: ContainerCreateOptions,
): Promise<string> {
  const answer = await client.call(
    (docker, abortSignal) =>
      new Promise<unknown>((resolve, reject) => {
        const request = {
          path: "/containers/create?",
          method: "POST",
          options: { _query: { name }, _body: body },
          statusCodes: { 200: true, 201: true },
          abortSignal,
        };
        docker.modem.dial(request, (error, result) => (error ? reject(error) : resolve(result)));
      }),
  );
  if (typeof answer === "object" && answer !== null && "Id" in answer && typeof answer.Id === "string") {
    return answer.Id;
  }
  throw new RuntimeFailure("refused", "the daemon's answer to create names no container");
}
