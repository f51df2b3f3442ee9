import type { EngineRow } from "../../../db/engines.ts";
import { toProcessIdentity, type ContainerObservation } from "../../runtime/engine-runtime.ts";
import type { Move } from "../model/moves.ts";
import type { StatusReason } from "../model/engine-status.ts";

/** What was seen of an engine just now. Whatever could not be asked is not in here: then nothing is planned. */
export interface Observation {
  /** Every container of the engine, newest incarnation first. */
  containers: readonly ContainerObservation[];
  hasData: boolean;
  /** null when the container was not running, so that nobody was asked. */
  health: HealthObservation | null;
}
export type HealthObservation = { ready: true; uptimeMs: number } | { ready: false; why: string };

/** The one thing to do next. `settled` and `wait` do nothing but say when to look again. */
export type Step =
  | { do: "settled"; nextCheckMs: number }
  | { do: "wait"; ms: number }
  | { do: "move"; move: Exclude<Move, "fail" | "ready"> }
  | { do: "ready"; container: ContainerObservation }
  | { do: "fail"; code: StatusReason; why: string; retry: boolean }
  | { do: "record_healthy"; container: ContainerObservation }
  | { do: "record_unhealthy"; why: string }
  | { do: "assign_port" }
  | { do: "resolve_image" }
  | { do: "create" }
  | { do: "start"; container: ContainerObservation }
  | { do: "unpause"; container: ContainerObservation }
  | { do: "stop"; container: ContainerObservation }
  | { do: "remove"; container: ContainerObservation }
  | { do: "remove_data" }
  | { do: "free_port" }
  | { do: "bury" };

/** Times and limits that decide, all in milliseconds. */
export interface PlanPolicy {
  /** Whether this look is the periodic one: a look that an event asked for counts no failure of health. */
  countsFailures: boolean;
  bootTimeoutMs: number;
  healthMaxFailures: number;
}

/** How often an engine that should lie still is looked at. */
const SETTLED_CHECK_MS = 600_000;
/** An engine that did not answer when an event made us look is looked at again soon, and that look counts. */
const HINT_RECHECK_MS = 1_000;
/** How often a boot is asked whether it is ready: quick at first, since many engines boot in well under a second. */
const BOOT_POLL_MIN_MS = 10;
const BOOT_POLL_MAX_MS = 250;
/** A daemon that restarted a booting engine this often will not get it up. */
const BOOT_CRASHES = 3;

/**
 * Decides the next step from the row and what was seen, and nothing else: no clock, no I/O. Doing a step twice
 * is harmless, so a process may die anywhere and the next one plans on from what it sees.
 */
export function planEngine(row: EngineRow, seen: Observation, policy: PlanPolicy & { nowMs: number }): Step {
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

function planDestroy(row: EngineRow, seen: Observation): Step {
  if (row.status !== "destroying") return { do: "move", move: "destroy" };
  const live = seen.containers.find(mayRun);
  if (live !== undefined) return { do: "stop", container: live };
  const [container] = seen.containers;
  if (container !== undefined) return { do: "remove", container };
  return seen.hasData ? { do: "remove_data" } : { do: "bury" };
}

function planStop(row: EngineRow, seen: Observation): Step {
  if (row.status !== "stopping" && row.status !== "stopped") return { do: "move", move: "stop" };
  const live = seen.containers.find(mayRun);
  if (live !== undefined) return { do: "stop", container: live };
  const stale = seen.containers.find((container) => container.incarnation !== row.incarnation);
  if (stale !== undefined) return { do: "remove", container: stale };
  if (row.status === "stopping") return { do: "move", move: "settle" };
  return { do: "settled", nextCheckMs: SETTLED_CHECK_MS };
}

function planRun(row: EngineRow, seen: Observation, policy: PlanPolicy & { nowMs: number }): Step {
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
      return { do: "settled", nextCheckMs: SETTLED_CHECK_MS };
  }
}

/**
 * One writer on the brain: the new container is made before the old one is stopped, and started only after
 * every older one is gone.
 */
function planBoot(row: EngineRow, seen: Observation, policy: PlanPolicy & { nowMs: number }): Step {
  const current = seen.containers.find((container) => container.incarnation === row.incarnation);
  if (current === undefined) return planCreate(row, seen);
  // Made late by a call that was given up, before the port was given back: its name is in the way of the right one.
  if (current.hostPort !== row.hostPort)
    return { do: mayRun(current) ? "stop" : "remove", container: current };
  const stale = seen.containers.find((container) => container !== current);
  if (stale !== undefined) return { do: mayRun(stale) ? "stop" : "remove", container: stale };
  if (toProcessIdentity(current) === row.processToReplace && mayRun(current))
    return { do: "stop", container: current };
  return planProcess(row, current, { ...policy, health: seen.health });
}

function planCreate(row: EngineRow, seen: Observation): Step {
  if (row.firstReadyAt !== null && !seen.hasData) {
    const why = `the volume ${row.volumeName} is not there any more; it is never made again empty`;
    return { do: "fail", code: "volume_missing", why, retry: false };
  }
  if (row.hostPort === null) return { do: "assign_port" };
  if (row.spec.imageId === null) return { do: "resolve_image" };
  return { do: "create" };
}

function planProcess(
  row: EngineRow,
  current: ContainerObservation,
  given: PlanPolicy & { nowMs: number; health: HealthObservation | null },
): Step {
  const bootMs = given.nowMs - toMs(row.bootStartedAt, given.nowMs);
  if (current.state === "created" || current.state === "exited") {
    const begun = row.processBeforeBoot !== null && row.processBeforeBoot !== toProcessIdentity(current);
    if (!begun) return { do: "start", container: current };
    return {
      do: "fail",
      code: "boot_exited",
      why: `the engine exited while booting${toExitText(current)}`,
      retry: true,
    };
  }
  if (current.state === "paused") return { do: "unpause", container: current };
  if (given.health?.ready === true && current.state === "running") return { do: "ready", container: current };
  // The daemon counts from our last start: where this boot is the daemon's own doing, the count is of older days.
  if (row.processBeforeBoot !== null && current.restartCount >= BOOT_CRASHES) {
    const why = `the engine crashed ${current.restartCount} times while booting${toExitText(current)}`;
    return { do: "fail", code: "boot_exited", why, retry: true };
  }
  if (bootMs < given.bootTimeoutMs) {
    return { do: "wait", ms: Math.min(BOOT_POLL_MAX_MS, Math.max(BOOT_POLL_MIN_MS, bootMs / 40)) };
  }
  const answer = given.health?.ready === false ? given.health.why : "no process to ask";
  const why = `not ready after ${Math.round(given.bootTimeoutMs / 1000)} s: ${answer}`;
  return { do: "fail", code: "boot_timeout", why, retry: true };
}

function planHealth(row: EngineRow, seen: Observation, policy: PlanPolicy): Step {
  const current = seen.containers.find((container) => container.incarnation === row.incarnation);
  if (current === undefined) {
    return { do: "fail", code: "health_failed", why: "its container is not there any more", retry: true };
  }
  if (toProcessIdentity(current) === row.processToReplace) return { do: "move", move: "boot" };
  // A create or start that was given up may have been carried out late: two writers would share the brain.
  const stale = seen.containers.find((container) => container !== current);
  if (stale !== undefined) return { do: mayRun(stale) ? "stop" : "remove", container: stale };
  if (current.state === "created" || current.state === "exited") {
    return { do: "fail", code: "health_failed", why: `the engine exited${toExitText(current)}`, retry: true };
  }
  if (seen.health?.ready === true) return { do: "record_healthy", container: current };
  // The daemon has started it again, or is about to: that is a boot, with a boot's time and a boot's callers waiting.
  const isNewProcess = toProcessIdentity(current) !== row.processIdentity;
  if (current.state === "restarting" || isNewProcess) return { do: "move", move: "boot" };
  return planUnhealthy(row, seen.health?.why ?? `its container is ${current.state}`, policy);
}

function planUnhealthy(row: EngineRow, why: string, policy: PlanPolicy): Step {
  if (!policy.countsFailures) return { do: "settled", nextCheckMs: HINT_RECHECK_MS };
  if (row.healthFailures + 1 < policy.healthMaxFailures) return { do: "record_unhealthy", why };
  return { do: "fail", code: "health_failed", why, retry: true };
}

/** Stopping first disarms the daemon's own restarting; only then is anything given back. */
function planFailed(row: EngineRow, seen: Observation, nowMs: number): Step {
  const live = seen.containers.find(mayRun);
  if (live !== undefined) return { do: "stop", container: live };
  if (row.nextRestartAt !== null) {
    const waitMs = toMs(row.nextRestartAt, nowMs) - nowMs;
    return waitMs <= 0 ? { do: "move", move: "boot" } : { do: "settled", nextCheckMs: waitMs };
  }
  const [container] = seen.containers;
  if (container !== undefined) return { do: "remove", container };
  if (row.hostPort !== null) return { do: "free_port" };
  // An engine that was never ready has nothing to keep, and its next provisioning begins from nothing.
  if (row.firstReadyAt === null && seen.hasData) return { do: "remove_data" };
  return { do: "settled", nextCheckMs: SETTLED_CHECK_MS };
}

function mayRun(container: ContainerObservation): boolean {
  switch (container.state) {
    case "running":
    case "paused":
    case "restarting":
      return true;
    case "created":
    case "exited":
      return false;
  }
}

function toExitText(container: ContainerObservation): string {
  const code = container.exitCode === null ? "" : ` (exit code ${container.exitCode})`;
  return container.oomKilled ? `${code}, out of memory` : code;
}

function toMs(at: string | null, fallback: number): number {
  return at === null ? fallback : Date.parse(at);
}
