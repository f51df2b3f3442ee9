import {
  afterMs,
  findEngineById,
  recordHealthy,
  takeEngineLease,
  updateEngineIf,
  type EnginePatch,
  type EngineRowAt,
} from "../../../db/engines.ts";
import { orchNow } from "../../../db/orch-now.ts";
import { RuntimeFailure } from "../../runtime/engine-runtime.ts";
import { isEngineAuthentic } from "../model/engine-mac.ts";
import { toStatusReason } from "../model/engine-status.ts";
import { applyStep, type StepOutcome } from "./apply-step.ts";
import { toMsSinceBoot } from "./ms-since-boot.ts";
import { observeEngine, observeHealth, type BootAnswer } from "./observe-engine.ts";
import { planEngine } from "./plan-engine.ts";
import type { ReconcileContext } from "./reconcile-context.ts";
import { refuseTampered } from "./refuse-tampered.ts";
import { ReconcileSlot, type ReconcileSlots } from "./reconcile-slot.ts";
import { spreadInterval } from "./spread-interval.ts";
import type { BootsInProgress } from "./wait-for-boot.ts";

/*
 *   take lease ─▶ take slot ─▶ read row ─▶ observe ─▶ plan (pure) ─▶ apply ─▶ record, if the row is unchanged ─▶ steady
 *                     ▲                                                  │
 *                     └──────────────────────────────────────────────────┘
 *
 * Provision, start, restart, stop, destroy, key rotation and crash recovery are this one function with other rows. It
 * reads the row before each step, so a new desired state takes effect at once. A replica that lost its lease stops. A row
 * that does not verify stops it too.
 */

/**
 * - `steady`: nothing to do for now; the lease is released.
 * - `unreachable`: the runtime did not answer, so nothing is known. `refused`: it refused a necessary step. Both retry.
 * - `tampered`: the row does not verify, so nothing of it is used.
 * - `no_lease`: another replica reconciles the engine, or this replica is shutting down.
 * - `gone`: the engine was destroyed.
 */
export type ReconcileOutcome = "steady" | "unreachable" | "refused" | "tampered" | "no_lease" | "gone";

export interface ReconcileInput {
  engineId: string;
  /** True for a resync. It needs no observation if the engine answers a probe. Only its failed probes are counted. */
  isResync: boolean;
  /** Called when steps are needed: only those need a slot. */
  onProbed(): void;
  /** Returns a new signal for one step. The signal aborts when the row should be read again. */
  wakeSignal(): AbortSignal;
  /** Called before each observation. That observation covers all runtime events so far. */
  onObserve(): void;
  slots: ReconcileSlots;
  boots: BootsInProgress;
  closing: AbortSignal;
}

const RETRY_MS = 2_000;
/**
 * A boot is work of this machine too, so it keeps its slot for some time. A longer boot mostly waits: it gives its slot up
 * for each wait.
 */
const BOOT_HOLD_MS = 5_000;
const UPTIME_TOLERANCE_MS = 2_000;

/**
 * Reconciles one engine until it is steady. After an unexpected error the lease stays: the next reconcile of this
 * replica renews it, and other replicas may take it once this replica is dead.
 */
export async function reconcileEngine(
  ctx: ReconcileContext,
  input: ReconcileInput,
): Promise<ReconcileOutcome> {
  const { engineId } = input;
  const request = { id: engineId, replicaId: ctx.replica.id, leaseMs: ctx.config.leaseMs };
  const leased = await takeEngineLease(ctx.db, request);
  if (leased === undefined) {
    return (await findEngineById(ctx.db, engineId)) === undefined ? "gone" : "no_lease";
  }
  if (await refuseIfTampered(ctx, leased)) return "tampered";
  if (input.isResync && (await recordIfHealthy(ctx, leased))) return "steady";
  input.onProbed();
  using slot = new ReconcileSlot(input.slots, { productId: leased.productId, clock: ctx.clock });
  return await runSteps(ctx, { ...input, leased, slot });
}

async function runSteps(
  ctx: ReconcileContext,
  input: ReconcileInput & { leased: EngineRowAt; slot: ReconcileSlot },
): Promise<ReconcileOutcome> {
  const { engineId, leased, slot } = input;
  let row: EngineRowAt | undefined = leased;
  let answer: BootAnswer | undefined;
  while (!input.closing.aborted) {
    const held = await slot.hold();
    if (held === "closing") break;
    // The row may have changed during the wait.
    if (held === "waited") row = await findEngineById(ctx.db, engineId);
    if (row === undefined) return "gone";
    if (!ctx.replica.holdsLease() || row.fencingToken !== leased.fencingToken) return "no_lease";
    if (await refuseIfTampered(ctx, row)) return "tampered";
    const outcome = await runStep(ctx, { ...input, row, answer });
    if (outcome.kind !== "again") return outcome.kind;
    answer = outcome.answer;
    row = await findEngineById(ctx.db, engineId);
  }
  await releaseLease(ctx, leased);
  return "no_lease";
}

/** The container, its address and its key come from the row. So a row that does not verify leads to no step at all. */
async function refuseIfTampered(ctx: ReconcileContext, row: EngineRowAt): Promise<boolean> {
  if (isEngineAuthentic(ctx.keyring, row)) return false;
  await refuseTampered(ctx, row);
  return true;
}

async function runStep(
  ctx: ReconcileContext,
  input: ReconcileInput & { row: EngineRowAt; slot: ReconcileSlot; answer: BootAnswer | undefined },
): Promise<StepOutcome | { kind: "unreachable" | "refused" }> {
  const { row, boots, slot } = input;
  const wake = AbortSignal.any([input.wakeSignal(), input.closing]);
  try {
    input.onObserve();
    const seen = await observeEngine(ctx, row, input.answer);
    const { publishesHostPorts, startsOnEnsure } = ctx.runtime;
    const policy = { ...ctx.config, publishesHostPorts, startsOnEnsure, isResync: input.isResync };
    const step = planEngine(row, seen, { ...policy, nowMs: Date.parse(row.now) });
    ctx.log.debug({ engineId: row.id, status: row.status, step: step.do }, "next step");
    if (step.do === "wait_for_boot" && toMsSinceBoot(row) > BOOT_HOLD_MS) slot.release();
    return await applyStep(ctx, { row, step, wake, boots, slot });
  } catch (error) {
    if (!(error instanceof RuntimeFailure)) throw error;
    if (error.kind === "no_such_container") return { kind: "again" };
    // A missing answer does not mean that the engine is gone. Only the lease and the time of the next check change.
    ctx.log.warn({ engineId: row.id, failure: error.kind, error: error.message }, "runtime call failed");
    const isUnreachable = error.kind === "unreachable" || error.kind === "changed";
    const patch = isUnreachable ? toUndecidedBoot(row) : toRefusal(ctx, row, error.message);
    await releaseLease(ctx, row, { ...patch, nextCheckAt: afterMs(RETRY_MS) });
    return { kind: isUnreachable ? "unreachable" : "refused" };
  }
}

/**
 * A daemon that goes down may end its containers. So an exit that is observed afterwards is not the engine's fault: the
 * boot begins anew with what the daemon has then, and gets its whole time.
 */
function toUndecidedBoot({ status }: EngineRowAt): EnginePatch {
  const isBoot = status === "provisioning" || status === "starting";
  return isBoot ? { processBeforeBoot: null, bootStartedAt: orchNow } : {};
}

/** Callers read the refused step's cause from the row. A failed engine keeps the reason of its failure. */
function toRefusal(ctx: ReconcileContext, { status }: EngineRowAt, why: string): EnginePatch {
  if (status === "running" || status === "failed") return {};
  return { statusReason: toStatusReason("runtime_refused", ctx.connections.secrets.hide(why)) };
}

async function releaseLease(ctx: ReconcileContext, row: EngineRowAt, patch?: EnginePatch): Promise<void> {
  const { id, fencingToken } = row;
  await updateEngineIf(ctx.db, { id, fencingToken }, { ...patch, leaseReplica: null });
}

/**
 * Records that the recorded process answered a probe, and releases the lease. False if it did not: observe the engine.
 * An uptime below the minimum means a new process.
 */
async function recordIfHealthy(ctx: ReconcileContext, row: EngineRowAt): Promise<boolean> {
  if (row.status !== "running" || row.desired !== "running") return false;
  if (row.processIdentity === null || row.processToReplace === row.processIdentity) return false;
  const health = await observeHealth(ctx, row.endpoint);
  if (!health.ready || health.uptimeMs < toMinUptimeMs(row)) return false;
  await recordHealthy(ctx.db, row, spreadInterval(ctx.config.healthIntervalMs));
  return true;
}

/** An engine may count its uptime from its start or from the end of its boot. So the boot is not part of the minimum. */
function toMinUptimeMs(row: EngineRowAt): number {
  if (row.processStartedAt === null) return 0;
  return Date.parse(row.now) - Date.parse(row.processStartedAt) - (row.bootMs ?? 0) - UPTIME_TOLERANCE_MS;
}
