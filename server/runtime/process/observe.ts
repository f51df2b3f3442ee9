import type { ContainerObservation, ContainerStats } from "../engine-runtime.ts";
import type { ProcessContainer } from "./container-store.ts";
import { toLoopbackEndpoint, toProcessIdentity } from "../local-process.ts";
import type { ProcessContext } from "./context.ts";
import { readProcessState } from "./engine-process.ts";
import { readMemoryBytes } from "./process-table.ts";

type ObserveContext = Pick<ProcessContext, "store"> & {
  watch: Pick<ProcessContext["watch"], "recordEnd" | "isEndOverdue">;
};

/**
 * Newest incarnation first. Without `engineId`: of all engines of this instance. Then an engine that cannot be ended is
 * running, so that it does not hide the others. For one engine, it is an error.
 */
export async function observeProcesses(
  ctx: ObserveContext,
  engineId?: string,
): Promise<ContainerObservation[]> {
  const containers = await (engineId === undefined ? ctx.store.list() : ctx.store.listOf(engineId));
  const present: ContainerObservation[] = [];
  for (const container of containers) {
    const observation = await observeProcess(ctx, container, engineId === undefined);
    if (observation !== undefined) present.push(observation);
  }
  return present.sort((a, b) => b.incarnation - a.incarnation);
}

/** The sum over all processes that the engine has started. */
export async function readProcessStats(ctx: ProcessContext, containerId: string): Promise<ContainerStats> {
  const container = await ctx.store.get(containerId);
  const engineProcess = await ctx.store.readProcess(container);
  const stats = { memoryBytes: 0, cpuNanoseconds: 0n, networkBytes: 0n };
  if (engineProcess === undefined) return stats;
  for (const member of await ctx.remains.listMembers(container, engineProcess)) {
    stats.memoryBytes += readMemoryBytes(member);
    stats.cpuNanoseconds += member.cpuNanoseconds;
  }
  return stats;
}

/** undefined: the container was removed during the observation. */
async function observeProcess(
  ctx: ObserveContext,
  container: ProcessContainer,
  isOneOfAll: boolean,
): Promise<ContainerObservation | undefined> {
  const { containerId, spec } = container;
  const seen = await observeRun(ctx, container, isOneOfAll);
  if (seen.state === "created" && (await ctx.store.find(containerId)) === undefined) return undefined;
  return {
    containerId,
    engineId: spec.engineId,
    incarnation: spec.incarnation,
    specHash: spec.specHash,
    ...seen,
    processIdentity: toProcessIdentity(containerId, seen.startedAt),
    oomKilled: false,
    restartCount: 0,
    endpoint: toLoopbackEndpoint(spec.hostPort),
    hostPort: spec.hostPort,
    defect: null,
    keyHash: spec.environment["ENGINE_KEY_HASH"] ?? "",
  };
}

async function observeRun(
  ctx: ObserveContext,
  container: ProcessContainer,
  isOneOfAll: boolean,
): Promise<Pick<ContainerObservation, "state" | "startedAt" | "exitCode">> {
  const engineProcess = await ctx.store.readProcess(container);
  if (engineProcess === undefined) return { state: "created", startedAt: null, exitCode: null };
  const { startedAt } = engineProcess;
  const running = { state: "running", startedAt, exitCode: null } as const;
  const state = await readProcessState(engineProcess);
  if (state !== "gone") return { state, startedAt, exitCode: null };
  try {
    if (isOneOfAll && ctx.watch.isEndOverdue(container, engineProcess)) return running;
    await ctx.watch.recordEnd(container, engineProcess);
  } catch (error) {
    if (!isOneOfAll) throw error;
    return running;
  }
  const exit = await ctx.store.readExit(container);
  return { state: "exited", startedAt, exitCode: exit?.startedAt === startedAt ? exit.exitCode : null };
}
