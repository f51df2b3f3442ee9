import { afterMs, orchNow, updateEngineIf, type EngineRowAt } from "../../db/engines.ts";
import type { EnginePatch } from "../../db/engines.ts";
import { RuntimeFailure, toProcessIdentity, type ContainerObservation } from "../runtime/engine-runtime.ts";
import { assignPort } from "./assign-port.ts";
import { buryEngine } from "./bury-engine.ts";
import type { ConvergeContext } from "./converge-engine.ts";
import { toContainerSpec, toSpecHash } from "./engine-spec.ts";
import { failEngine, hidePassedThrough } from "./fail-engine.ts";
import { observeHealth } from "./observe-engine.ts";
import type { Step } from "./plan-engine.ts";
import { recordReady, recordStillHealthy } from "./record-ready.ts";
import { recordMove } from "./record-move.ts";

/** `again`: look at the row again at once. */
export type StepOutcome = { kind: "again" | "settled" | "unreachable" | "refused" };

export interface CarryOutInput {
  row: EngineRowAt;
  step: Step;
  /** Aborts when a new intent was written: naps and pulls end early. */
  nudged: AbortSignal;
}

const AGAIN: StepOutcome = { kind: "again" };
const SETTLED: StepOutcome = { kind: "settled" };

/** Does one step and records it. Throws RuntimeFailure when the runtime could not do its part. */
export async function carryOut(ctx: ConvergeContext, input: CarryOutInput): Promise<StepOutcome> {
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
      await waitForBoot(ctx, input, step.ms);
      return AGAIN;
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
    default:
      await callRuntime(ctx, input, step);
      return AGAIN;
  }
}

type RecordStep = Extract<Step, { do: "move" | "fail" | "bury" | "assign_port" | "free_port" }>;

async function recordStep(ctx: ConvergeContext, row: EngineRowAt, step: RecordStep): Promise<void> {
  switch (step.do) {
    case "move":
      await recordMove(ctx, { row, move: step.move });
      return;
    case "fail":
      return failEngine(ctx, row, step);
    case "bury":
      return buryEngine(ctx, row);
    case "assign_port":
      return assignPort(ctx, row);
    case "free_port":
      await record(ctx, row, { hostPort: null });
  }
}

async function recordUnhealthy(ctx: ConvergeContext, row: EngineRowAt, why: string): Promise<void> {
  const healthFailures = row.healthFailures + 1;
  ctx.log.warn({ engineId: row.id, healthFailures, why: hidePassedThrough(ctx, why) }, "health probe failed");
  await record(ctx, row, { healthFailures, nextCheckAt: afterMs(ctx.config.healthIntervalMs) });
}

type RuntimeStep = Extract<
  Step,
  { do: "resolve_image" | "create" | "start" | "unpause" | "stop" | "remove" | "remove_data" }
>;

async function callRuntime(ctx: ConvergeContext, input: CarryOutInput, step: RuntimeStep): Promise<void> {
  const { row } = input;
  switch (step.do) {
    case "resolve_image":
      return resolveImage(ctx, input);
    case "create":
      return createContainer(ctx, input);
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

async function resolveImage(ctx: ConvergeContext, { row, nudged }: CarryOutInput): Promise<void> {
  try {
    const imageId = await ctx.runtime.resolveImage(row.spec.image, nudged);
    const spec = { ...row.spec, imageId };
    await record(ctx, row, { spec, specHash: toSpecHash(spec), bootStartedAt: orchNow });
  } catch (error) {
    if (nudged.aborted) return;
    await refuseBoot(ctx, row, error);
  }
}

async function createContainer(ctx: ConvergeContext, { row, nudged }: CarryOutInput): Promise<void> {
  try {
    await ensureContainer(ctx, row, nudged);
  } catch (error) {
    if (nudged.aborted) return;
    await refuseBoot(ctx, row, error);
  }
}

/** An image that was pruned is fetched again by its name, as long as the name still means the same. */
async function ensureContainer(ctx: ConvergeContext, row: EngineRowAt, nudged: AbortSignal): Promise<void> {
  const spec = toContainerSpec(ctx.config, row, row.spec.imageId ?? row.spec.image);
  try {
    await ctx.runtime.ensure(spec);
  } catch (error) {
    if (!(error instanceof RuntimeFailure) || error.kind !== "image_missing") throw error;
    const found = await ctx.runtime.resolveImage(row.spec.image, nudged);
    if (found !== spec.imageId) throw error;
    await ctx.runtime.ensure(spec);
  }
}

/** What the container was is recorded first: an exit of another process than that is an exit of this boot. */
async function startContainer(
  ctx: ConvergeContext,
  row: EngineRowAt,
  container: ContainerObservation,
): Promise<void> {
  const written = await record(ctx, row, {
    bootOf: toProcessIdentity(container),
    containerId: container.containerId,
  });
  if (!written) return;
  try {
    await ctx.runtime.start(container.containerId);
  } catch (error) {
    if (!(error instanceof RuntimeFailure) || error.kind !== "port_taken") return refuseBoot(ctx, row, error);
    ctx.log.warn({ engineId: row.id, hostPort: row.hostPort }, "the host port is taken, taking another");
    if (row.hostPort !== null) ctx.takenPorts.add(row.hostPort);
    // The port is part of the container, so another port is another container.
    await record(ctx, row, { hostPort: null, incarnation: row.incarnation + 1, bootOf: null });
  }
}

/** A clear no from the runtime fails the boot; no answer is not a no and is thrown on. */
async function refuseBoot(ctx: ConvergeContext, row: EngineRowAt, error: unknown): Promise<void> {
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

/** Asks the engine again and again without asking the runtime: it is looked at once a second. */
async function waitForBoot(ctx: ConvergeContext, input: CarryOutInput, firstMs: number): Promise<void> {
  const untilMs = ctx.clock.now() + 1_000;
  let napMs = firstMs;
  while (ctx.clock.now() < untilMs && !input.nudged.aborted) {
    await ctx.clock.sleep(napMs, input.nudged).catch(() => {
      // Woken early: the row is read again at once.
    });
    if (input.nudged.aborted || (await observeHealth(ctx, input.row, input.nudged)).ready) return;
    napMs = Math.min(napMs * 1.1, firstMs * 2);
  }
}

async function record(ctx: ConvergeContext, row: EngineRowAt, patch: EnginePatch): Promise<boolean> {
  const condition = { id: row.id, fence: row.fence, statusIn: [row.status], desired: row.desired };
  return (await updateEngineIf(ctx.db, { ...condition, incarnation: row.incarnation }, patch)) !== undefined;
}
