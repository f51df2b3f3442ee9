import { afterMs, updateEngineIf, type EnginePatch, type EngineRowAt } from "../../../db/engines.ts";
import { orchNow } from "../../../db/orch-now.ts";
import { RuntimeFailure, type ContainerObservation } from "../../runtime/engine-runtime.ts";
import { toContainerSpec, toSpecHash } from "../model/engine-spec.ts";
import { toProvenPatch } from "../model/engine-mac.ts";
import { toStatusReason } from "../model/engine-status.ts";
import { assignPort } from "./assign-port.ts";
import { failEngine } from "./fail-engine.ts";
import { leaveTombstone } from "./leave-tombstone.ts";
import type { BootAnswer } from "./observe-engine.ts";
import type { Step } from "./plan-engine.ts";
import type { ReconcileContext } from "./reconcile-context.ts";
import type { ReconcileSlot } from "./reconcile-slot.ts";
import { recordMove } from "./record-move.ts";
import { recordReady, recordStillHealthy } from "./record-ready.ts";
import { waitForBoot, type BootsInProgress } from "./wait-for-boot.ts";

/** `again`: read the row and observe again. `steady`: nothing to do for now; the lease is released. */
export type StepOutcome = { kind: "steady" } | { kind: "again"; answer?: BootAnswer | undefined };

export interface ApplyStepInput {
  row: EngineRowAt;
  step: Step;
  /** Aborts when the row should be read again: it ends waits and pulls early. */
  wake: AbortSignal;
  boots: BootsInProgress;
  /** Given up during long waits. */
  slot: ReconcileSlot;
}

/** Part of the last write of a reconcile, so that releasing the lease costs no round trip of its own. */
const RELEASED: EnginePatch = { leaseReplica: null };
const AGAIN: StepOutcome = { kind: "again" };

/** Applies one step and records it. Throws RuntimeFailure when a runtime call failed. */
export async function applyStep(ctx: ReconcileContext, input: ApplyStepInput): Promise<StepOutcome> {
  const { row, step, wake, boots } = input;
  switch (step.do) {
    case "steady":
      return toOutcome(await record(ctx, row, { ...RELEASED, nextCheckAt: afterMs(step.nextCheckMs) }));
    case "record_healthy":
      return toOutcome(await recordStillHealthy(ctx, row, step));
    case "record_unhealthy":
      return toOutcome(await recordUnhealthy(ctx, row, step.why));
    case "ready":
      return toOutcome(await recordReady(ctx, row, step.container));
    case "wait_for_boot":
      return { kind: "again", answer: await waitForBoot(ctx, { ...step, wake, boots }) };
    default:
      await changeEngine(ctx, input, step);
      return AGAIN;
  }
}

/** If another writer changed the row, the reconcile goes on with the new row. */
function toOutcome(isRecorded: boolean): StepOutcome {
  return isRecorded ? { kind: "steady" } : AGAIN;
}

async function recordUnhealthy(ctx: ReconcileContext, row: EngineRowAt, why: string): Promise<boolean> {
  const healthFailures = row.healthFailures + 1;
  ctx.log.warn(
    { engineId: row.id, healthFailures, why: ctx.connections.secrets.hide(why) },
    "health probe failed",
  );
  const nextCheckAt = afterMs(ctx.config.healthIntervalMs);
  return record(ctx, row, { ...RELEASED, healthFailures, nextCheckAt });
}

type ChangeStep = Exclude<
  Step,
  { do: "steady" | "record_healthy" | "record_unhealthy" | "ready" | "wait_for_boot" }
>;

async function changeEngine(
  ctx: ReconcileContext,
  input: ApplyStepInput,
  step: ChangeStep,
): Promise<unknown> {
  const { row, slot } = input;
  switch (step.do) {
    case "move":
      return recordMove(ctx, { row, move: step.move, ...toCause(step.why) });
    case "renew":
      return renewContainer(ctx, row, step.why);
    case "fail":
      return failEngine(ctx, row, step);
    case "leave_tombstone":
      return leaveTombstone(ctx, row);
    case "assign_port":
      return assignPort(ctx, row);
    case "free_address":
      return record(ctx, row, { hostPort: null, endpoint: null });
    case "resolve_image":
      return resolveImage(ctx, input);
    case "create":
      return createContainer(ctx, input);
    case "start":
      return startContainer(ctx, row, step.container);
    case "unpause":
      return ctx.runtime.unpause(step.container.containerId);
    case "stop":
      return slot.releaseDuring(() => ctx.runtime.stop(step.container.containerId, toGraceSeconds(ctx, row)));
    case "remove":
      return ctx.runtime.remove(step.container.containerId);
    case "remove_data":
      return ctx.runtime.removeData(row.volumeName);
  }
}

/** Puts the cause of a boot that no caller requested on the row and into the audit log. */
function toCause(why: string | undefined) {
  if (why === undefined) return {};
  return { patch: { statusReason: toStatusReason("health_failed", why) }, metadata: { why } };
}

/** The next incarnation is created on the same volume. The present container is stopped and removed before its start. */
async function renewContainer(ctx: ReconcileContext, row: EngineRowAt, why: string): Promise<void> {
  ctx.log.warn({ engineId: row.id, incarnation: row.incarnation, why }, "making another container");
  const patch = { processBeforeBoot: null, incarnation: row.incarnation + 1 };
  if (row.status !== "running") await record(ctx, row, patch);
  else
    await recordMove(ctx, { row, move: "boot", ...toCause(why), patch: { ...toCause(why).patch, ...patch } });
}

function toGraceSeconds(ctx: ReconcileContext, row: EngineRowAt): number {
  return Math.ceil((row.stopGraceMs ?? ctx.config.stopGraceMs) / 1000);
}

type CreateInput = Pick<ApplyStepInput, "row" | "wake" | "slot">;

async function resolveImage(ctx: ReconcileContext, input: CreateInput): Promise<void> {
  const { row, wake, slot } = input;
  try {
    const imageId = await slot.releaseDuring(() => ctx.runtime.resolveImage(row.spec.image, wake));
    const spec = { ...row.spec, imageId };
    await record(ctx, row, { spec, specHash: toSpecHash(spec), bootStartedAt: orchNow });
  } catch (error) {
    if (!wake.aborted) await refuseBoot(ctx, row, error);
  }
}

async function createContainer(ctx: ReconcileContext, input: CreateInput): Promise<void> {
  const { row, wake } = input;
  try {
    await ensureContainer(ctx, input);
  } catch (error) {
    if (!wake.aborted) await refuseBoot(ctx, row, error);
  }
}

/** A pruned image is pulled again by its name, and used only if the name still resolves to the same id. */
async function ensureContainer(ctx: ReconcileContext, { row, wake, slot }: CreateInput): Promise<void> {
  const { image, imageId } = row.spec;
  const spec = toContainerSpec(ctx.config, row, imageId ?? image);
  try {
    await ctx.runtime.ensure(spec);
  } catch (error) {
    if (!(error instanceof RuntimeFailure) || error.kind !== "image_missing") throw error;
    const pulledId = await slot.releaseDuring(() => ctx.runtime.resolveImage(image, wake));
    if (pulledId !== spec.imageId || (await slot.hold()) === "closing") throw error;
    await ctx.runtime.ensure(spec);
  }
}

/**
 * Records the present process first: after the start, an exit of any other process is an exit of this boot. The boot
 * time counts from here, because a stop's grace or an image pull before it may take long.
 */
async function startContainer(
  ctx: ReconcileContext,
  row: EngineRowAt,
  container: ContainerObservation,
): Promise<void> {
  const { containerId, endpoint, processIdentity } = container;
  const begun = { processBeforeBoot: processIdentity, bootStartedAt: orchNow, containerId, endpoint };
  if (!(await record(ctx, row, begun))) return;
  try {
    await ctx.runtime.start(containerId);
  } catch (error) {
    if (error instanceof RuntimeFailure && error.kind === "unfit") {
      // A container that never ran is as good as a new one. So another one comes only after a pause.
      if (container.startedAt === null) return refuseBoot(ctx, row, error);
      return renewContainer(ctx, row, error.message);
    }
    if (!(error instanceof RuntimeFailure) || error.kind !== "port_taken") return refuseBoot(ctx, row, error);
    const { id: engineId, hostPort, incarnation } = row;
    ctx.log.warn({ engineId, hostPort }, "the host port is taken; choosing another one");
    if (hostPort !== null) ctx.takenPorts.add(hostPort);
    // The port is part of the container, so another port needs another container.
    const noAddress = { hostPort: null, endpoint: null, processBeforeBoot: null };
    await record(ctx, row, { ...noAddress, incarnation: incarnation + 1 });
  }
}

/** If the runtime clearly refused, the boot fails. If the outcome is unknown, the error is thrown again. */
async function refuseBoot(ctx: ReconcileContext, row: EngineRowAt, error: unknown): Promise<void> {
  if (!(error instanceof RuntimeFailure)) throw error;
  switch (error.kind) {
    case "unreachable":
    case "changed":
    case "no_such_container":
      throw error;
    case "image_missing":
      return failEngine(ctx, row, { code: "image_unavailable", why: error.message, retry: true });
    case "unfit":
      return failEngine(ctx, row, { code: "runtime_refused", why: error.message, retry: true, renew: true });
    case "port_taken":
    case "conflict":
    case "refused":
      return failEngine(ctx, row, { code: "runtime_refused", why: error.message, retry: true });
  }
}

/** False: another writer changed the row, or another replica took the lease; nothing is written. */
async function record(ctx: ReconcileContext, row: EngineRowAt, patch: EnginePatch): Promise<boolean> {
  const { id, fencingToken, desired, incarnation } = row;
  const { patch: proven, mac } = toProvenPatch(ctx.keyring, row, patch);
  const condition = { id, fencingToken, desired, incarnation, statusIn: [row.status], mac };
  return (await updateEngineIf(ctx.db, condition, proven)) !== undefined;
}
