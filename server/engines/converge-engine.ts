import {
  claimDriver,
  findEngineById,
  recordHealthy,
  type EngineRow,
  type EngineRowAt,
} from "../../db/engines.ts";
import type { AppContext } from "../context.ts";
import { RuntimeFailure } from "../runtime/engine-runtime.ts";
import { carryOut, type StepOutcome } from "./carry-out.ts";
import { observeEngine, observeHealth } from "./observe-engine.ts";
import { planEngine } from "./plan-engine.ts";
import { spreadInterval } from "./spread-interval.ts";

/**
 *   claim the driver ─▶ observe ─▶ plan (pure) ─▶ carry out ─▶ record where nothing changed meanwhile
 *                          ▲                                        │
 *                          └──────────── row read again ◀───────────┘   until nothing is left to do
 *
 * Provision, start, restart, stop, destroy, key rotation and recovery after a crash are this one function with
 * other rows. The row is read again before each step, so an intent written meanwhile takes over at once, and a
 * driver that lost its place stops.
 */
export type ConvergeContext = Pick<
  AppContext,
  "db" | "runtime" | "config" | "log" | "clock" | "replica" | "takenPorts"
>;

/**
 * `settled`: nothing to do for now. `unreachable`: the runtime does not answer, nothing was concluded from it.
 * `refused`: it answered no to something that has to be done; it is tried again.
 */
export type ConvergeOutcome = "settled" | "unreachable" | "refused" | "not_ours" | "gone";

export interface ConvergeInput {
  engineId: string;
  /** A healthy answer to a probe is enough for a running engine: the runtime is not asked. */
  quick: boolean;
  /** Aborts naps and pulls when a new intent was written; a fresh signal each time it is read. */
  nudged(): AbortSignal;
  closing: AbortSignal;
}

const UPTIME_TOLERANCE_MS = 2_000;

/** A healthy engine tells its uptime: one younger than the last probe is a new process, and gets looked at. */
export async function convergeEngine(ctx: ConvergeContext, input: ConvergeInput): Promise<ConvergeOutcome> {
  const claim = { id: input.engineId, replicaId: ctx.replica.id, leaseMs: ctx.config.leaseMs };
  let row = await claimDriver(ctx.db, claim);
  if (row === undefined) {
    return (await findEngineById(ctx.db, input.engineId)) === undefined ? "gone" : "not_ours";
  }
  const { fence } = row;
  if (input.quick && (await isQuietlyHealthy(ctx, row))) return "settled";

  while (!input.closing.aborted) {
    if (!ctx.replica.holdsLease() || row.fence !== fence) return "not_ours";
    const outcome = await runStep(ctx, row, input);
    if (outcome.kind !== "again") return outcome.kind;
    row = await findEngineById(ctx.db, input.engineId);
    if (row === undefined) return "gone";
  }
  return "not_ours";
}

async function runStep(ctx: ConvergeContext, row: EngineRowAt, input: ConvergeInput): Promise<StepOutcome> {
  const nudged = AbortSignal.any([input.nudged(), input.closing]);
  try {
    const seen = await observeEngine(ctx, row);
    const step = planEngine(row, seen, {
      ...ctx.config,
      countsFailures: input.quick,
      nowMs: Date.parse(row.now),
    });
    ctx.log.debug({ engineId: row.id, status: row.status, step: step.do }, "next step");
    return await carryOut(ctx, { row, step, nudged });
  } catch (error) {
    if (!(error instanceof RuntimeFailure)) throw error;
    return onRuntimeFailure(ctx, row, error);
  }
}

/** Unknown is not gone: nothing of the row changes, and the next look is soon. */
async function onRuntimeFailure(
  ctx: ConvergeContext,
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

async function isQuietlyHealthy(ctx: ConvergeContext, row: EngineRowAt): Promise<boolean> {
  if (row.status !== "running" || row.desired !== "running") return false;
  if (row.processIdentity === null || row.restartOf === row.processIdentity) return false;
  const health = await observeHealth(ctx, row);
  if (!health.ready || health.uptimeMs < toExpectedUptimeMs(row)) return false;
  await recordHealthy(ctx.db, row.id, spreadInterval(ctx.config.healthIntervalMs));
  return true;
}
