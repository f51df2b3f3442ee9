import { setTimeout as sleep } from "node:timers/promises";
import type { ContainerInspectInfo } from "dockerode";
import { toErrorMessage } from "../../errors.ts";
import type { DockerContext } from "./context.ts";
import { RESTART_POLICY } from "./create-options.ts";
import { toHttpStatus, unlessStatus } from "./failure.ts";
import { DOCKER_LABEL } from "./labels.ts";
import { isObjectName } from "./names.ts";
import { RuntimeFailure } from "../engine-runtime.ts";

const RETRY_MS = 50;
/** Well within a lease: for longer than one, somebody else may have been the driver and have stopped it. */
const UNTOUCHED_MS = 5_000;

export async function startContainer(ctx: DockerContext, containerId: string): Promise<void> {
  const createdAt = ctx.unstarted.get(containerId);
  ctx.unstarted.delete(containerId);
  // One that was created just now is as it was created, and needs no look.
  const isUntouched = createdAt !== undefined && performance.now() - createdAt < UNTOUCHED_MS;
  if (!isUntouched && !(await makeStartable(ctx, containerId))) return;
  await ctx.client.call((docker, abortSignal) =>
    docker.getContainer(containerId).start({ abortSignal }).catch(unlessStatus(304)),
  );
}

/** False when it runs already. */
async function makeStartable(ctx: DockerContext, containerId: string): Promise<boolean> {
  const { State: state, HostConfig: hostConfig } = await getOwnContainer(ctx, containerId);
  if (state.Paused) throw new RuntimeFailure("refused", "a paused container is unpaused, not started");
  if (state.Running) return false;
  // An earlier stop may have disarmed it.
  if (hostConfig.RestartPolicy?.Name !== RESTART_POLICY) {
    await setRestartPolicy(ctx, containerId, RESTART_POLICY);
  }
  return true;
}

export async function pauseContainer(ctx: DockerContext, containerId: string): Promise<void> {
  await assertOwn(ctx, containerId);
  await ctx.client.call(async (docker, abortSignal) => {
    const pause = async () => docker.getContainer(containerId).pause({ abortSignal });
    const isPaused = async () =>
      pause()
        .catch(async (error: unknown) => unlessNow(ctx, containerId, { error, paused: true }))
        .then(toTrue, unlessFreezing);
    while (!(await isPaused())) await sleep(RETRY_MS, undefined, { signal: abortSignal });
  });
}

export async function unpauseContainer(ctx: DockerContext, containerId: string): Promise<void> {
  await assertOwn(ctx, containerId);
  await ctx.client.call((docker, abortSignal) =>
    docker
      .getContainer(containerId)
      .unpause({ abortSignal })
      .catch(async (error: unknown) => unlessNow(ctx, containerId, { error, paused: false })),
  );
}

export async function stopContainer(
  ctx: DockerContext,
  containerId: string,
  graceSeconds: number,
): Promise<void> {
  ctx.unstarted.delete(containerId);
  await assertOwn(ctx, containerId);
  const { callTimeoutMs } = ctx.client;
  const stopped = await ctx.client.call(
    (docker, abortSignal) =>
      docker
        .getContainer(containerId)
        .stop({ t: graceSeconds, abortSignal })
        .then(() => "stopped")
        .catch(unlessStatus(304)),
    graceSeconds * 1000 + callTimeoutMs,
  );
  // To stop what is not running is 304 and leaves the policy armed: a restarted daemon would start it again.
  if (stopped === undefined) await setRestartPolicy(ctx, containerId, "no");
}

export async function removeContainer(ctx: DockerContext, containerId: string): Promise<void> {
  if ((await findOwnContainer(ctx, containerId)) === undefined) return;
  await ctx.client.call(async (docker, abortSignal) => {
    // With `v` the volumes that the image declares go too, which nobody else would ever remove; named ones stay.
    const options = { force: true, v: true, abortSignal };
    const isGone = async () => docker.getContainer(containerId).remove(options).then(toTrue, unlessRemoving);
    while (!(await isGone())) await sleep(RETRY_MS, undefined, { signal: abortSignal });
  });
  ctx.owned.delete(containerId);
  ctx.unstarted.delete(containerId);
}

/** Throws `no_such_container` for a container of somebody else, too: it is not seen and not touched. */
export async function getOwnContainer(
  ctx: DockerContext,
  containerId: string,
): Promise<ContainerInspectInfo> {
  const inspected = await findOwnContainer(ctx, containerId);
  if (inspected === undefined) {
    throw new RuntimeFailure("no_such_container", `no container ${containerId} of this instance`);
  }
  return inspected;
}

export async function findOwnContainer(
  ctx: DockerContext,
  containerId: string,
): Promise<ContainerInspectInfo | undefined> {
  const inspected = await inspectContainer(ctx, containerId);
  if (inspected?.Config.Labels[DOCKER_LABEL.instance] !== ctx.instanceId) return undefined;
  ctx.owned.add(inspected.Id);
  return inspected;
}

/** Whosever it is. */
export async function inspectContainer(
  { client }: Pick<DockerContext, "client">,
  idOrName: string,
): Promise<ContainerInspectInfo | undefined> {
  if (!isObjectName(idOrName)) return undefined;
  return client.call((docker, abortSignal) =>
    docker.getContainer(idOrName).inspect({ abortSignal }).catch(unlessStatus(404)),
  );
}

export async function assertOwn(ctx: DockerContext, containerId: string): Promise<void> {
  if (!ctx.owned.has(containerId)) await getOwnContainer(ctx, containerId);
}

async function setRestartPolicy({ client }: DockerContext, containerId: string, name: string): Promise<void> {
  await client.call((docker, abortSignal) =>
    docker.getContainer(containerId).update({ RestartPolicy: { Name: name }, abortSignal }),
  );
}

/** Daemons say in different ways that nothing was left to do, so the container is asked instead. */
async function unlessNow(
  ctx: DockerContext,
  containerId: string,
  wanted: { error: unknown; paused: boolean },
): Promise<void> {
  if (toHttpStatus(wanted.error) === undefined) throw wanted.error;
  const { State: state } = await getOwnContainer(ctx, containerId);
  if (!state.Running || state.Paused !== wanted.paused) throw wanted.error;
}

const toTrue = () => true;

/** Gone is as good as removed; 409 says that another call is removing it. */
function unlessRemoving(error: unknown): boolean {
  const status = toHttpStatus(error);
  if (status === 404) return true;
  if (status === 409) return false;
  throw error;
}

/** On cgroup v1 and a busy machine, processes may run away from the freezer for so long that runc gives up. */
function unlessFreezing(error: unknown): boolean {
  if (toHttpStatus(error) !== undefined && /unable to freeze/i.test(toErrorMessage(error))) return false;
  throw error;
}
