import type { ContainerObservation, ContainerStats } from "../engine-runtime.ts";
import { getContainer } from "./containers.ts";
import type { ProcessContext } from "./context.ts";
import { listRunGroup, readRunState } from "./run.ts";
import { readMemoryBytes } from "./table.ts";
import type { ProcessContainer } from "./store.ts";

/** Newest incarnation first. Without `engineId` those of all engines of this instance. */
export async function observeProcesses(
  ctx: ProcessContext,
  engineId?: string,
): Promise<ContainerObservation[]> {
  const containers = await ctx.store.listContainers();
  const wanted = containers.filter(({ spec }) => engineId === undefined || spec.engineId === engineId);
  const observations = await Promise.all(wanted.map((container) => observeProcess(ctx, container)));
  const present = observations.filter((observation) => observation !== undefined);
  return present.sort((a, b) => b.incarnation - a.incarnation);
}

/** All processes of the group together. */
export async function readProcessStats(ctx: ProcessContext, containerId: string): Promise<ContainerStats> {
  const run = await ctx.store.readRun(await getContainer(ctx, containerId));
  const stats = { memoryBytes: 0, cpuNanoseconds: 0n, networkBytes: 0n };
  if (run === undefined) return stats;
  for (const member of await listRunGroup(run)) {
    stats.memoryBytes += await readMemoryBytes(member);
    stats.cpuNanoseconds += member.cpuNanoseconds;
  }
  return stats;
}

/** undefined: removed while it was looked at. */
async function observeProcess(
  ctx: ProcessContext,
  container: ProcessContainer,
): Promise<ContainerObservation | undefined> {
  const { containerId, spec } = container;
  const seen = await observeRun(ctx, container);
  if (seen.state === "created" && (await ctx.store.findContainer(containerId)) === undefined)
    return undefined;
  return {
    containerId,
    engineId: spec.engineId,
    incarnation: spec.incarnation,
    specHash: spec.specHash,
    ...seen,
    oomKilled: false,
    restartCount: 0,
    hostPort: spec.hostPort,
    keyHash: spec.environment["ENGINE_KEY_HASH"] ?? "",
  };
}

async function observeRun(
  ctx: ProcessContext,
  container: ProcessContainer,
): Promise<Pick<ContainerObservation, "state" | "startedAt" | "exitCode">> {
  const run = await ctx.store.readRun(container);
  if (run === undefined) return { state: "created", startedAt: null, exitCode: null };
  const { startedAt } = run;
  const state = await readRunState(run);
  if (state !== "gone") return { state, startedAt, exitCode: null };
  await ctx.watch.settle(container, run);
  const exit = await ctx.store.readExit(container);
  return { state: "exited", startedAt, exitCode: exit?.startedAt === startedAt ? exit.exitCode : null };
}
