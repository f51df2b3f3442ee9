import {
  takeEngineLease,
  findEngineById,
  recordHealthy,
  type EngineRow,
  type EngineRowAt,
} from "../../../db/engines.ts";
import type { ReconcileContext } from "./reconcile-context.ts";
import { RuntimeFailure } from "../../runtime/engine-runtime.ts";
import {
  applyStep,
  type AgainOutcome,
  type BootsUnderWay,
  type Look,
  type StepOutcome,
} from "./apply-step.ts";
import { observeEngine, observeHealth, observeNothing, type ProbeAnswer } from "./observe-engine.ts";
import { planEngine } from "./plan-engine.ts";
import { spreadInterval } from "./spread-interval.ts";

/**
 *   claim the driver ─▶ observe ─▶ plan (pure) ─▶ carry out ─▶ record where nothing changed meanwhile
 *                          ▲          ▲                             │
 *                          │          └── the step's own answer ◀───┤   where it says all there is to see
 *                          └──────────── row read again ◀───────────┘   until nothing is left to do
 *
 * Provision, start, restart, stop, destroy, key rotation and recovery after a crash are this one function with
 * other rows. The row is read again before each step, or written where it is still the same, so an intent written
 * meanwhile takes over at once, and a driver that lost its place stops.
 */

/**
 * `settled`: nothing to do for now. `unreachable`: the runtime does not answer, nothing was concluded from it.
 * `refused`: it answered no to something that has to be done; it is tried again.
 */
export type ReconcileOutcome = "settled" | "unreachable" | "refused" | "not_ours" | "gone";

export interface ReconcileInput {
  engineId: string;
  /** A healthy answer to a probe is enough for a running engine: the runtime is not asked. */
  quick: boolean;
  /** Aborts naps and pulls when a new intent was written; a fresh signal each time it is read. */
  nudged(): AbortSignal;
  /** The runtime is about to be looked at: whatever was seen to happen so far, the look will show. */
  looking(): void;
  boots: BootsUnderWay;
  closing: AbortSignal;
}

const UPTIME_TOLERANCE_MS = 2_000;
/** What was seen this long ago is looked at again, whatever the steps since have said. */
const LOOK_VALID_MS = 1_000;

/** What a step is planned on. */
interface Ground {
  row: EngineRowAt;
  /** undefined: the runtime is asked. */
  look?: Look | undefined;
  answer?: ProbeAnswer | undefined;
  /** Nobody has driven this engine yet, so the runtime was never asked for anything of it. */
  isFirst?: boolean;
}

/** Each claim moves the fence, and nothing is asked of the runtime without a claim. */
const FIRST_FENCING_TOKEN = 1;

/** A healthy engine tells its uptime: one younger than the last probe is a new process, and gets looked at. */
export async function reconcileEngine(
  ctx: ReconcileContext,
  input: ReconcileInput,
): Promise<ReconcileOutcome> {
  const idempotency = { id: input.engineId, replicaId: ctx.replica.id, leaseMs: ctx.config.leaseMs };
  const row = await takeEngineLease(ctx.db, idempotency);
  if (row === undefined) {
    return (await findEngineById(ctx.db, input.engineId)) === undefined ? "gone" : "not_ours";
  }
  const { fencingToken } = row;
  if (input.quick && (await isQuietlyHealthy(ctx, row))) return "settled";

  let ground: Ground | undefined = { row, isFirst: fencingToken === FIRST_FENCING_TOKEN };
  while (!input.closing.aborted) {
    if (!ctx.replica.holdsLease() || ground.row.fencingToken !== fencingToken) return "not_ours";
    const outcome = await runStep(ctx, ground, input);
    if (outcome.kind !== "again") return outcome.kind;
    ground = await findGround(ctx, input.engineId, outcome);
    if (ground === undefined) return "gone";
  }
  return "not_ours";
}

/** undefined: the engine is gone. */
async function findGround(
  ctx: ReconcileContext,
  engineId: string,
  { next, answer }: AgainOutcome,
): Promise<Ground | undefined> {
  if (next !== undefined && ctx.clock.now() - next.look.atMs < LOOK_VALID_MS) return next;
  const row = await findEngineById(ctx.db, engineId);
  return row && { row, answer };
}

async function runStep(ctx: ReconcileContext, ground: Ground, input: ReconcileInput): Promise<StepOutcome> {
  const { row } = ground;
  const nudged = AbortSignal.any([input.nudged(), input.closing]);
  try {
    const look = ground.look ?? (await lookAt(ctx, ground, input));
    const step = planEngine(row, look.seen, {
      ...ctx.config,
      countsFailures: input.quick,
      nowMs: Date.parse(row.now),
    });
    ctx.log.debug({ engineId: row.id, status: row.status, step: step.do }, "next step");
    return await applyStep(ctx, { row, look, step, nudged, boots: input.boots });
  } catch (error) {
    if (!(error instanceof RuntimeFailure)) throw error;
    return onRuntimeFailure(ctx, row, error);
  }
}

async function lookAt(ctx: ReconcileContext, ground: Ground, input: ReconcileInput): Promise<Look> {
  input.looking();
  const atMs = ctx.clock.now();
  if (ground.isFirst) return { atMs, seen: await observeNothing(ctx) };
  return { atMs, seen: await observeEngine(ctx, ground.row, ground.answer) };
}

/** Unknown is not gone: nothing of the row changes, and the next look is soon. */
async function onRuntimeFailure(
  ctx: ReconcileContext,
  row: EngineRow,
  failure: RuntimeFailure,
): Promise<StepOutcome> {
  if (failure.kind === "no_such_container") return { kind: "again" };
  ctx.log.warn({ engineId: row.id, failure: failure.kind, error: failure.message }, "runtime call failed");
  return { kind: failure.kind === "unreachable" || failure.kind === "changed" ? "unreachable" : "refused" };
}

/** How long the process on record must be up by now: from its start, less what it took to boot. */
function toExpectedUptimeMs(row: EngineRowAt): number {
  const startedAt = Date.parse(row.processIdentity?.split("@")[1] ?? "");
  if (Number.isNaN(startedAt)) return 0;
  return Date.parse(row.now) - startedAt - (row.bootMs ?? 0) - UPTIME_TOLERANCE_MS;
}

async function isQuietlyHealthy(ctx: ReconcileContext, row: EngineRowAt): Promise<boolean> {
  if (row.status !== "running" || row.desired !== "running") return false;
  if (row.processIdentity === null || row.processToReplace === row.processIdentity) return false;
  const health = await observeHealth(ctx, row);
  if (!health.ready || health.uptimeMs < toExpectedUptimeMs(row)) return false;
  await recordHealthy(ctx.db, row.id, spreadInterval(ctx.config.healthIntervalMs));
  return true;
}
