import { setTimeout as sleep } from "node:timers/promises";
import { toErrorMessage } from "../../errors.ts";
import type { DockerContext } from "./context.ts";
import { RESTART_POLICY } from "./create-options.ts";
import { toHttpStatus, unlessStatus } from "./failure.ts";
import { assertOwn, findOwnContainer, getOwnContainer } from "./own-containers.ts";
import { RuntimeFailure } from "../engine-runtime.ts";

const RETRY_MS = 50;
/** Shorter than a lease. After that, another replica may have held the lease and stopped the container. */
const NEW_MS = 5_000;

export async function startContainer(ctx: DockerContext, containerId: string): Promise<void> {
  const createdAt = ctx.unstarted.get(containerId);
  ctx.unstarted.delete(containerId);
  // A new container is still as it was created, so the call to inspect it is saved.
  const isNew = createdAt !== undefined && performance.now() - createdAt < NEW_MS;
  if (!isNew && !(await makeStartable(ctx, containerId))) return;
  await ctx.client.call((docker, abortSignal) =>
    docker.getContainer(containerId).start({ abortSignal }).catch(unlessStatus(304)),
  );
}

/** False: the container runs already. */
async function makeStartable(ctx: DockerContext, containerId: string): Promise<boolean> {
  const { State: state, HostConfig: hostConfig } = await getOwnContainer(ctx, containerId);
  if (state.Paused) {
    throw new RuntimeFailure("refused", `the container ${containerId} is paused: unpause it instead`);
  }
  if (state.Running) return false;
  // An earlier stop may have set the policy to `no`.
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
        .catch(async (error: unknown) => unlessAlready(ctx, containerId, { error, paused: true }))
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
      .catch(async (error: unknown) => unlessAlready(ctx, containerId, { error, paused: false })),
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
  // For a container that does not run, the daemon answers 304 and keeps the restart policy. A restarted daemon would
  // then start the container again.
  if (stopped === undefined) await setRestartPolicy(ctx, containerId, "no");
}

export async function removeContainer(ctx: DockerContext, containerId: string): Promise<void> {
  if ((await findOwnContainer(ctx, containerId)) === undefined) return;
  await ctx.client.call(async (docker, abortSignal) => {
    // `v` also removes the anonymous volumes that the image declares. Named volumes stay.
    const options = { force: true, v: true, abortSignal };
    const isGone = async () => docker.getContainer(containerId).remove(options).then(toTrue, unlessRemoving);
    while (!(await isGone())) await sleep(RETRY_MS, undefined, { signal: abortSignal });
  });
  ctx.owned.delete(containerId);
  ctx.unstarted.delete(containerId);
}

async function setRestartPolicy({ client }: DockerContext, containerId: string, name: string): Promise<void> {
  await client.call((docker, abortSignal) =>
    docker.getContainer(containerId).update({ RestartPolicy: { Name: name }, abortSignal }),
  );
}

/** Daemons refuse a needless pause or unpause in different ways, so this checks the container's state instead. */
async function unlessAlready(
  ctx: DockerContext,
  containerId: string,
  { error, paused }: { error: unknown; paused: boolean },
): Promise<void> {
  if (toHttpStatus(error) === undefined) throw error;
  const { State: state } = await getOwnContainer(ctx, containerId);
  if (!state.Running || state.Paused !== paused) throw error;
}

const toTrue = () => true;

/** True: the container is gone. False: another call is removing it (409). */
function unlessRemoving(error: unknown): boolean {
  const status = toHttpStatus(error);
  if (status === 404) return true;
  if (status === 409) return false;
  throw error;
}

/** False: runc gave up freezing the processes, which can happen with cgroup v1 on a busy machine. Try again. */
function unlessFreezing(error: unknown): boolean {
  if (toHttpStatus(error) !== undefined && /unable to freeze/i.test(toErrorMessage(error))) return false;
  throw error;
}
