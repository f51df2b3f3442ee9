import { constants } from "node:os";
import type { EngineRow } from "../../../db/engines.ts";
import type { ContainerObservation } from "../../runtime/engine-runtime.ts";
import type { StatusReason } from "../model/engine-status.ts";
import type { Move } from "../model/moves.ts";

/** The observed state of one engine. If a part could not be observed, there is no Observation and no plan. */
export interface Observation {
  /** All containers of the engine, newest incarnation first. */
  containers: readonly ContainerObservation[];
  hasData: boolean;
  /** The kernel has just killed the process on record, because it reached the memory limit. */
  outOfMemory: boolean;
  /** null: the engine was not probed, because it is not expected to answer. */
  health: HealthObservation | null;
}
export type HealthObservation = { ready: true; uptimeMs: number } | { ready: false; why: string };

/** The next step. `steady` ends the reconcile and says when to check again. */
export type Step =
  | { do: "steady"; nextCheckMs: number }
  | { do: "wait_for_boot"; container: ContainerObservation; probeMs: number }
  /** `why`: the cause of a boot that no caller requested. */
  | { do: "move"; move: Exclude<Move, "fail" | "ready">; why?: string | undefined }
  /** Begins a boot with another container on the same volume. */
  | { do: "renew"; why: string }
  | { do: "ready"; container: ContainerObservation }
  /** `why`: how the process on record ended, if another one answers and the cause is known. */
  | { do: "record_healthy"; container: ContainerObservation; why?: string | undefined }
  /** `renew`: the next boot gets another container. */
  | { do: "fail"; code: StatusReason; why: string; retry: boolean; renew?: boolean }
  | { do: "record_unhealthy"; why: string }
  | { do: "start" | "unpause" | "stop" | "remove"; container: ContainerObservation }
  | { do: "assign_port" | "free_address" | "resolve_image" | "create" | "remove_data" | "leave_tombstone" };

/** Inputs of a plan besides the row and the observation. */
export interface PlanPolicy {
  /** By the database's clock. */
  nowMs: number;
  /** In a resync, a failed probe counts as a failure. In a reconcile that an event or a caller started, it does not. */
  isResync: boolean;
  bootTimeoutMs: number;
  healthMaxFailures: number;
  /** Properties of the runtime; see EngineRuntime. */
  publishesHostPorts: boolean;
  startsOnEnsure: boolean;
}

/** The check interval of an engine that should not run. */
const STEADY_CHECK_MS = 600_000;
/** After a failed probe that did not count, the next check comes soon, and that one counts. */
const UNHEALTHY_RECHECK_MS = 1_000;
/** Interval of the boot's health probes. It grows with the age of the boot; many engines boot in far less than 1 s. */
const BOOT_PROBE_MIN_MS = 10;
const BOOT_PROBE_MAX_MS = 250;
/** After this many restarts by the daemon, a boot fails. */
const BOOT_CRASHES = 3;
const SIGNAL_BASE = 128;

/**
 * Chooses the next step from row and observation. It uses no clock and no I/O. Applying a step twice is harmless, so
 * a process may die at any point, and the next one plans from what it observes.
 */
export function planEngine(row: EngineRow, seen: Observation, policy: PlanPolicy): Step {
  switch (row.desired) {
    case "destroyed":
      return planDestroy(row, seen);
    case "stopped":
      return planStop(row, seen);
    case "running":
    case "paused":
      return planRun(row, seen, policy);
  }
}

/** The container of the row's incarnation. */
export function findCurrent(
  row: EngineRow,
  containers: readonly ContainerObservation[],
): ContainerObservation | undefined {
  return containers.find((container) => container.incarnation === row.incarnation);
}

function planDestroy(row: EngineRow, seen: Observation): Step {
  if (row.status !== "destroying") return { do: "move", move: "destroy" };
  const live = seen.containers.find(mayRun);
  if (live !== undefined) return { do: "stop", container: live };
  const [container] = seen.containers;
  if (container !== undefined) return { do: "remove", container };
  return seen.hasData ? { do: "remove_data" } : { do: "leave_tombstone" };
}

function planStop(row: EngineRow, seen: Observation): Step {
  if (row.status !== "stopping" && row.status !== "stopped") return { do: "move", move: "stop" };
  const live = seen.containers.find(mayRun);
  if (live !== undefined) return { do: "stop", container: live };
  const stale = seen.containers.find((container) => container.incarnation !== row.incarnation);
  if (stale !== undefined) return { do: "remove", container: stale };
  if (row.status === "stopping") return { do: "move", move: "finish_stop" };
  return { do: "steady", nextCheckMs: STEADY_CHECK_MS };
}

function planRun(row: EngineRow, seen: Observation, policy: PlanPolicy): Step {
  switch (row.status) {
    case "provisioning":
    case "starting":
      return planBoot(row, seen, policy);
    case "running":
      return planHealth(row, seen, policy);
    case "failed":
      return planFailed(row, seen, policy.nowMs);
    case "stopping":
    case "stopped":
    case "sleeping":
      return { do: "move", move: "boot" };
    case "destroying":
      return { do: "steady", nextCheckMs: STEADY_CHECK_MS };
  }
}

/**
 * At most one process writes to the brain. If the runtime can create a container without starting it, the new one is
 * created before the old one is stopped. It is started only after every older container is gone.
 */
function planBoot(row: EngineRow, seen: Observation, policy: PlanPolicy): Step {
  const current = findCurrent(row, seen.containers);
  const stale = seen.containers.find((container) => container !== current);
  if (current === undefined) {
    return stale !== undefined && policy.startsOnEnsure ? toRemoval(stale) : planCreate(row, seen, policy);
  }
  // A late create call made it with a port that was freed since. The container's name blocks the right one.
  if (policy.publishesHostPorts && current.hostPort !== row.hostPort) return toRemoval(current);
  if (stale !== undefined) return toRemoval(stale);
  const isReplaced = current.processIdentity === row.processToReplace;
  if (isReplaced && mayRun(current)) return { do: "stop", container: current };
  return planProcess(row, current, { ...policy, ...seen });
}

function planCreate(row: EngineRow, seen: Observation, policy: PlanPolicy): Step {
  if (row.firstReadyAt !== null && !seen.hasData) return toVolumeMissing(row);
  if (policy.publishesHostPorts && row.hostPort === null) return { do: "assign_port" };
  if (row.spec.imageId === null) return { do: "resolve_image" };
  return { do: "create" };
}

function toVolumeMissing(row: EngineRow): Step {
  const why = `the volume ${row.volumeName} is missing; the engine is not started on an empty volume`;
  return { do: "fail", code: "volume_missing", why, retry: false };
}

type BootInput = PlanPolicy & Pick<Observation, "health" | "outOfMemory">;

function planProcess(row: EngineRow, current: ContainerObservation, given: BootInput): Step {
  const hasStarted = row.processBeforeBoot !== null && row.processBeforeBoot !== current.processIdentity;
  if (!mayRun(current)) {
    if (hasStarted) {
      const why = `the engine exited while booting${toExitText(row, current, given)}`;
      return { do: "fail", code: "boot_exited", why, retry: true };
    }
    if (current.defect !== null) return { do: "renew", why: current.defect };
    return { do: "start", container: current };
  }
  if (current.state === "paused") return { do: "unpause", container: current };
  if (given.health?.ready === true && current.state === "running") return { do: "ready", container: current };
  // A container that answers is never replaced. The second container of one boot would have the same defect as the
  // first, so only the next boot makes another one, after its pause.
  if (current.defect !== null) {
    const why = current.defect;
    return hasStarted || given.startsOnEnsure
      ? { do: "fail", code: "runtime_refused", why, retry: true, renew: true }
      : { do: "renew", why };
  }
  return planWait(row, current, given);
}

function planWait(row: EngineRow, current: ContainerObservation, given: BootInput): Step {
  // The daemon counts restarts from our last start. In a boot that the daemon began, the count belongs to older boots.
  if (row.processBeforeBoot !== null && current.restartCount >= BOOT_CRASHES) {
    const why = `the engine crashed ${current.restartCount} times while booting${toExitText(row, current, given)}`;
    return { do: "fail", code: "boot_exited", why, retry: true };
  }
  const bootMs = given.nowMs - toMs(row.bootStartedAt, given.nowMs);
  if (bootMs < given.bootTimeoutMs) {
    const probeMs = Math.min(BOOT_PROBE_MAX_MS, Math.max(BOOT_PROBE_MIN_MS, bootMs / 40));
    return { do: "wait_for_boot", container: current, probeMs };
  }
  const answer = given.health?.ready === false ? given.health.why : "no process to probe";
  const why = `not ready after ${Math.round(given.bootTimeoutMs / 1000)} s: ${answer}`;
  return { do: "fail", code: "boot_timeout", why, retry: true };
}

function planHealth(row: EngineRow, seen: Observation, policy: PlanPolicy): Step {
  const current = findCurrent(row, seen.containers);
  if (current === undefined) {
    if (row.firstReadyAt !== null && !seen.hasData) return toVolumeMissing(row);
    return { do: "fail", code: "health_failed", why: "the container is missing", retry: true };
  }
  if (current.processIdentity === row.processToReplace) return { do: "move", move: "boot" };
  // A create or start call that timed out may complete late. Then two processes would write to the brain.
  const stale = seen.containers.find((container) => container !== current);
  if (stale !== undefined) return toRemoval(stale);
  if (!mayRun(current)) {
    const why = `the engine exited${toExitText(row, current, seen)}`;
    return { do: "fail", code: "health_failed", why, retry: true };
  }
  return planLive(row, current, { ...policy, ...seen });
}

/** For the only container of a running engine, which runs or is restarted by the runtime. */
function planLive(row: EngineRow, current: ContainerObservation, seen: PlanPolicy & Observation): Step {
  const isRestarted = current.state === "restarting" || current.processIdentity !== row.processIdentity;
  const why = isRestarted ? findRestartCause(row, current, seen) : undefined;
  if (seen.health?.ready === true) return { do: "record_healthy", container: current, why };
  if (current.defect !== null) return { do: "renew", why: current.defect };
  // A restart by the daemon counts as a boot: the process gets the boot timeout, and callers wait for it.
  if (isRestarted) return { do: "move", move: "boot", why };
  return planUnhealthy(row, seen.health?.why ?? `the container is ${current.state}`, seen);
}

function planUnhealthy(row: EngineRow, why: string, policy: PlanPolicy): Step {
  if (!policy.isResync) return { do: "steady", nextCheckMs: UNHEALTHY_RECHECK_MS };
  if (row.healthFailures + 1 < policy.healthMaxFailures) return { do: "record_unhealthy", why };
  return { do: "fail", code: "health_failed", why, retry: true };
}

/** The stop comes first, because it also disarms the daemon's own restarts. Only then is the address freed. */
function planFailed(row: EngineRow, seen: Observation, nowMs: number): Step {
  const live = seen.containers.find(mayRun);
  if (live !== undefined) return { do: "stop", container: live };
  if (row.nextRestartAt !== null) {
    const waitMs = toMs(row.nextRestartAt, nowMs) - nowMs;
    return waitMs <= 0 ? { do: "move", move: "boot" } : { do: "steady", nextCheckMs: waitMs };
  }
  const [container] = seen.containers;
  if (container !== undefined) return { do: "remove", container };
  if (row.hostPort !== null || row.endpoint !== null) return { do: "free_address" };
  // An engine that was never ready has no data to keep. The next provisioning starts with a new volume.
  if (row.firstReadyAt === null && seen.hasData) return { do: "remove_data" };
  return { do: "steady", nextCheckMs: STEADY_CHECK_MS };
}

function toRemoval(container: ContainerObservation): Step {
  return { do: mayRun(container) ? "stop" : "remove", container };
}

function mayRun(container: ContainerObservation): boolean {
  return container.state !== "created" && container.state !== "exited";
}

/** The cause if a runtime has restarted the process for a known reason. */
function findRestartCause(
  row: EngineRow,
  current: ContainerObservation,
  { outOfMemory }: Pick<Observation, "outOfMemory">,
): string | undefined {
  if (!outOfMemory && !current.oomKilled) return undefined;
  return `the engine ran ${toMemoryText(row)}; the runtime started it again`;
}

function toExitText(
  row: EngineRow,
  { exitCode, oomKilled }: ContainerObservation,
  { outOfMemory }: Pick<Observation, "outOfMemory">,
): string {
  const code = exitCode === null ? "" : ` (exit code ${exitCode})`;
  if (oomKilled || outOfMemory) return `${code}, ${toMemoryText(row)}`;
  const signal = findSignal(exitCode);
  if (signal === undefined) return code;
  const guess = signal === "SIGKILL" ? ", perhaps by the kernel for lack of memory" : "";
  return `${code}, killed by the signal ${signal}${guess}`;
}

function toMemoryText({ spec }: EngineRow): string {
  const advice = "policy.resources.memoryMb sets the limit of engines that are provisioned later";
  return `out of memory: its limit is ${spec.limits.memoryMb} MiB, and ${advice}`;
}

/** By the convention of shells and Docker, an exit code above 128 is 128 plus the number of the signal. */
function findSignal(exitCode: number | null): string | undefined {
  if (exitCode === null || exitCode <= SIGNAL_BASE) return undefined;
  return Object.entries(constants.signals).find(([, number]) => number === exitCode - SIGNAL_BASE)?.[0];
}

function toMs(at: string | null, fallback: number): number {
  return at === null ? fallback : Date.parse(at);
}
