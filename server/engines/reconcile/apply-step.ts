import { afterMs, orchNow, updateEngineIf, type EngineRowAt } from "../../../db/engines.ts";
import type { EnginePatch } from "../../../db/engines.ts";
import {
  RuntimeFailure,
  toProcessIdentity,
  type ContainerObservation,
  type ContainerSpec,
  type EnsuredContainer,
} from "../../runtime/engine-runtime.ts";
import { assignPort } from "./assign-port.ts";
import { leaveTombstone } from "./leave-tombstone.ts";
import type { ReconcileContext } from "./reconcile-context.ts";
import { toContainerSpec, toSpecHash } from "../model/engine-spec.ts";
import { failEngine, hidePassedThrough } from "./fail-engine.ts";
import { findCurrent, observeHealth, type ProbeAnswer } from "./observe-engine.ts";
import type { Observation, Step } from "./plan-engine.ts";
import { recordReady, recordStillHealthy } from "./record-ready.ts";
import { recordMove } from "./record-move.ts";

/** What was seen, and when by the process's clock. */
export interface Look {
  seen: Observation;
  atMs: number;
}

/** Go on at once: with what the step itself tells, else with the row read again and another look. */
export interface AgainOutcome {
  kind: "again";
  /**
   * The row as this step wrote or found it, and what there is to see after it. Only where the next step begins
   * by writing to the row where it is still the same: nothing else says that no intent came meanwhile.
   */
  next?: { row: EngineRowAt; look: Look };
  /** A probe was answered well. */
  answer?: ProbeAnswer;
}
export type StepOutcome = AgainOutcome | { kind: "settled" | "unreachable" | "refused" };

export interface ApplyStepInput {
  row: EngineRowAt;
  /** What the step was planned on. */
  look: Look;
  step: Step;
  /** Aborts when a new intent was written: naps and pulls end early. */
  nudged: AbortSignal;
  /** Shared by all engines. */
  boots: BootsUnderWay;
}

/** How many boots are being waited for in this process. */
export interface BootsUnderWay {
  count: number;
}

/** Probes of all boots together are at least this far apart, so that a hundred at once do not starve each other. */
const PROBE_GAP_MS = 5;

const AGAIN: AgainOutcome = { kind: "again" };
const SETTLED: StepOutcome = { kind: "settled" };

/** Does one step and records it. Throws RuntimeFailure when the runtime could not do its part. */
export async function applyStep(ctx: ReconcileContext, input: ApplyStepInput): Promise<StepOutcome> {
  const { row, step } = input;
  switch (step.do) {
    case "settled":
      await record(ctx, row, { nextCheckAt: afterMs(step.nextCheckMs) });
      return SETTLED;
    case "record_healthy":
      await recordStillHealthy(ctx, row, step.container);
      return SETTLED;
    case "record_unhealthy":
      await recordUnhealthy(ctx, row, step.why);
      return SETTLED;
    case "wait":
      return waitForBoot(ctx, input, step.ms);
    case "ready":
      // What came meanwhile asks for one more look; without it there is nothing left to see.
      return (await recordReady(ctx, row, step.container)) ? SETTLED : AGAIN;
    case "move":
    case "fail":
    case "bury":
    case "assign_port":
    case "free_port":
      await recordStep(ctx, row, step);
      return AGAIN;
    case "resolve_image":
      return resolveImage(ctx, input);
    case "create":
      return createContainer(ctx, input);
    default:
      await callRuntime(ctx, row, step);
      return AGAIN;
  }
}

type RecordStep = Extract<Step, { do: "move" | "fail" | "bury" | "assign_port" | "free_port" }>;

async function recordStep(ctx: ReconcileContext, row: EngineRowAt, step: RecordStep): Promise<void> {
  switch (step.do) {
    case "move":
      await recordMove(ctx, { row, move: step.move });
      return;
    case "fail":
      return failEngine(ctx, row, step);
    case "bury":
      return leaveTombstone(ctx, row);
    case "assign_port":
      return assignPort(ctx, row);
    case "free_port":
      await record(ctx, row, { hostPort: null });
  }
}

async function recordUnhealthy(ctx: ReconcileContext, row: EngineRowAt, why: string): Promise<void> {
  const healthFailures = row.healthFailures + 1;
  ctx.log.warn({ engineId: row.id, healthFailures, why: hidePassedThrough(ctx, why) }, "health probe failed");
  await record(ctx, row, { healthFailures, nextCheckAt: afterMs(ctx.config.healthIntervalMs) });
}

type RuntimeStep = Extract<Step, { do: "start" | "unpause" | "stop" | "remove" | "remove_data" }>;

async function callRuntime(ctx: ReconcileContext, row: EngineRowAt, step: RuntimeStep): Promise<void> {
  switch (step.do) {
    case "start":
      return startContainer(ctx, row, step.container);
    case "unpause":
      return ctx.runtime.unpause(step.container.containerId);
    case "stop":
      return ctx.runtime.stop(
        step.container.containerId,
        Math.ceil((row.stopGraceMs ?? ctx.config.stopGraceMs) / 1000),
      );
    case "remove":
      return ctx.runtime.remove(step.container.containerId);
    case "remove_data":
      return ctx.runtime.removeData(row.volumeName);
  }
}

/** An image that is here changes nothing of what was seen, and the row is read again by being written. */
async function resolveImage(ctx: ReconcileContext, input: ApplyStepInput): Promise<AgainOutcome> {
  const { row, look, nudged } = input;
  try {
    const imageId = await ctx.runtime.resolveImage(row.spec.image, nudged);
    const spec = { ...row.spec, imageId };
    const written = await record(ctx, row, { spec, specHash: toSpecHash(spec), bootStartedAt: orchNow });
    return written === undefined ? AGAIN : { kind: "again", next: { row: written, look } };
  } catch (error) {
    if (!nudged.aborted) await refuseBoot(ctx, row, error);
    return AGAIN;
  }
}

/** A container that was just made, and is the only one, is known without a look; its start is recorded first. */
async function createContainer(ctx: ReconcileContext, input: ApplyStepInput): Promise<AgainOutcome> {
  const { row, look, nudged } = input;
  const spec = toContainerSpec(ctx.config, row, row.spec.imageId ?? row.spec.image);
  try {
    const { containerId, created } = await ensureContainer(ctx, { row, spec, nudged });
    if (!created || look.seen.containers.length > 0) return AGAIN;
    const seen = { containers: [toCreated(spec, containerId)], hasData: true, health: null };
    return { kind: "again", next: { row, look: { ...look, seen } } };
  } catch (error) {
    if (!nudged.aborted) await refuseBoot(ctx, row, error);
    return AGAIN;
  }
}

/** An image that was pruned is fetched again by its name, as long as the name still means the same. */
async function ensureContainer(
  ctx: ReconcileContext,
  { row, spec, nudged }: Pick<ApplyStepInput, "row" | "nudged"> & { spec: ContainerSpec },
): Promise<EnsuredContainer> {
  try {
    return await ctx.runtime.ensure(spec);
  } catch (error) {
    if (!(error instanceof RuntimeFailure) || error.kind !== "image_missing") throw error;
    const found = await ctx.runtime.resolveImage(row.spec.image, nudged);
    if (found !== spec.imageId) throw error;
    return ctx.runtime.ensure(spec);
  }
}

function toCreated(spec: ContainerSpec, containerId: string): ContainerObservation {
  const { engineId, incarnation, specHash, hostPort, environment } = spec;
  return {
    containerId,
    engineId,
    incarnation,
    specHash,
    state: "created",
    startedAt: null,
    exitCode: null,
    oomKilled: false,
    restartCount: 0,
    hostPort,
    keyHash: environment["ENGINE_KEY_HASH"] ?? "",
  };
}

/**
 * What the container was is recorded first: an exit of another process than that is an exit of this boot. Its time
 * counts from here: a process before it may have used up its whole grace, and an image may have been large.
 */
async function startContainer(
  ctx: ReconcileContext,
  row: EngineRowAt,
  container: ContainerObservation,
): Promise<void> {
  const written = await record(ctx, row, {
    processBeforeBoot: toProcessIdentity(container),
    bootStartedAt: orchNow,
    containerId: container.containerId,
  });
  if (written === undefined) return;
  try {
    await ctx.runtime.start(container.containerId);
  } catch (error) {
    if (!(error instanceof RuntimeFailure) || error.kind !== "port_taken") return refuseBoot(ctx, row, error);
    ctx.log.warn({ engineId: row.id, hostPort: row.hostPort }, "the host port is taken, taking another");
    if (row.hostPort !== null) ctx.takenPorts.add(row.hostPort);
    // The port is part of the container, so another port is another container.
    await record(ctx, row, { hostPort: null, incarnation: row.incarnation + 1, processBeforeBoot: null });
  }
}

/** A clear no from the runtime fails the boot; no answer is not a no and is thrown on. */
async function refuseBoot(ctx: ReconcileContext, row: EngineRowAt, error: unknown): Promise<void> {
  if (!(error instanceof RuntimeFailure)) throw error;
  switch (error.kind) {
    case "unreachable":
    case "changed":
    case "no_such_container":
      throw error;
    case "image_missing":
      return failEngine(ctx, row, { code: "image_unavailable", why: error.message, retry: true });
    case "port_taken":
    case "conflict":
    case "refused":
      return failEngine(ctx, row, { code: "runtime_refused", why: error.message, retry: true });
  }
}

async function waitForBoot(
  ctx: ReconcileContext,
  input: ApplyStepInput,
  firstMs: number,
): Promise<AgainOutcome> {
  input.boots.count += 1;
  try {
    return await probeBoot(ctx, input, firstMs);
  } finally {
    input.boots.count -= 1;
  }
}

/** Asks the engine again and again without asking the runtime: it is looked at once a second. */
async function probeBoot(
  ctx: ReconcileContext,
  input: ApplyStepInput,
  firstMs: number,
): Promise<AgainOutcome> {
  const current = findCurrent(input.row, input.look.seen.containers);
  const untilMs = ctx.clock.now() + 1_000;
  let napMs = firstMs;
  while (ctx.clock.now() < untilMs && !input.nudged.aborted) {
    const fairMs = Math.max(napMs, input.boots.count * PROBE_GAP_MS);
    await ctx.clock.sleep(fairMs, input.nudged).catch(() => {
      // Woken early: the row is read again at once.
    });
    if (input.nudged.aborted) return AGAIN;
    const health = await observeHealth(ctx, input.row, input.nudged);
    if (health.ready && current !== undefined) {
      return { kind: "again", answer: { process: toProcessIdentity(current), health } };
    }
    napMs = Math.min(napMs * 1.05, firstMs * 1.5);
  }
  return AGAIN;
}

/** undefined: the race was lost. */
async function record(
  ctx: ReconcileContext,
  row: EngineRowAt,
  patch: EnginePatch,
): Promise<EngineRowAt | undefined> {
  const condition = {
    id: row.id,
    fencingToken: row.fencingToken,
    statusIn: [row.status],
    desired: row.desired,
  };
  return updateEngineIf(ctx.db, { ...condition, incarnation: row.incarnation }, patch);
}
