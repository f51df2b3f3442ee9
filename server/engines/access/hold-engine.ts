import type { UsableEngine } from "../../../db/engines.ts";
import type { BaseContext } from "../../context.ts";
import { DomainError } from "../../errors.ts";
import type { OpenedKeys } from "../../keys/opened-keys.ts";
import { abortable } from "../../time/abortable.ts";
import type { Deadline } from "../../time/deadline.ts";
import { findStatusReasonCode } from "../model/engine-status.ts";
import { toAvailability, toRestartMs } from "../model/engine-availability.ts";
import type { Reconciler } from "../reconcile/reconciler.ts";
import type { AcquireOptions, EngineHolds, Hold } from "./engine-holds.ts";

/** A running engine and the right to use it; disposing or `release` gives the right back. */
export interface HeldEngine extends Hold {
  engineId: string;
  generation: number;
  /** Base URL, no trailing slash. */
  endpoint: string;
  /** Plaintext, for the X-Engine-Key header and nothing else. */
  apiKey: string;
}

/** A hold on an engine, usable or not. */
export type EngineHold = Hold & Pick<HeldEngine, "engineId" | "generation">;

export interface HoldContext extends Pick<BaseContext, "clock"> {
  holds: EngineHolds;
  reconciler: Pick<Reconciler, "waitForReconcile">;
  openedKeys: Pick<OpenedKeys, "open">;
}

export interface HoldInput extends AcquireOptions {
  engine: UsableEngine;
  /** The value of `holds.gateChanges` before `engine` was read. */
  gateChanges: number;
  /** Refuse with GENERATION_CHANGED when the engine is of another generation. */
  expectGeneration?: number | undefined;
}

const BOOT_RETRY_MS = 500;

/**
 * Holds an engine that was just read. While the engine boots, or an operation has closed its gate, this waits. Returns
 * undefined after a wait or a change of a gate: read the row again, and call this again.
 *
 * @throws ENGINE_STOPPED, ENGINE_SLEEPING, ENGINE_UNHEALTHY, ENGINE_DESTROYING, GENERATION_CHANGED, ROW_TAMPERED, the
 *   signal's reason.
 */
export async function holdEngine(
  ctx: HoldContext,
  input: HoldInput,
  signal: AbortSignal,
): Promise<HeldEngine | undefined> {
  const { engine, gateChanges } = input;
  if (isBooting(engine)) {
    await untilBooted(ctx, engine.id, signal);
    return undefined;
  }
  const hold = await ctx.holds.acquire(engine.id, signal, input);
  let held: HeldEngine | undefined;
  try {
    // An operation may have changed the engine between the read and the hold.
    if (ctx.holds.gateChanges !== gateChanges) return undefined;
    requireUsable(input);
    held = toHeldEngine(ctx, engine, hold);
    return held;
  } finally {
    if (held === undefined) hold.release();
  }
}

/** Whether `holdEngine` would have to wait. Call `holdEngine` without an await in between. */
export function isBlocked({ holds }: Pick<HoldContext, "holds">, engine: UsableEngine): boolean {
  return isBooting(engine) || holds.isGated(engine.id);
}

export interface Wait {
  deadline: Deadline;
  timeoutMs: number;
  /** undefined: the engine was not read yet. */
  engineId: string | undefined;
}

/** The error for a wait that failed: DEADLINE_EXCEEDED if the deadline cut it short, else the error itself. */
export function toWaitError(
  { holds }: Pick<HoldContext, "holds">,
  error: unknown,
  { deadline, timeoutMs, engineId }: Wait,
): unknown {
  const isCut = error instanceof Error && (error.name === "AbortError" || error.name === "TimeoutError");
  if (!isCut || !deadline.hasPassed) return error;
  const why = engineId === undefined ? undefined : holds.explainGate(engineId);
  const message = `the engine did not become usable within ${timeoutMs} ms${why === undefined ? "" : `: ${why}`}`;
  return new DomainError("DEADLINE_EXCEEDED", message, { retryAfterMs: 1_000 });
}

function isBooting(engine: UsableEngine): boolean {
  return toAvailability(engine) === "booting";
}

async function untilBooted(ctx: HoldContext, engineId: string, signal: AbortSignal): Promise<void> {
  // Joins the reconcile that boots the engine, or starts one.
  const outcome = await abortable(ctx.reconciler.waitForReconcile(engineId), signal);
  // The engine cannot be reconciled here at the moment. A retry at once would only cost CPU.
  if (outcome !== "steady" && outcome !== "gone") await ctx.clock.sleep(BOOT_RETRY_MS, signal);
}

function requireUsable({ engine, expectGeneration }: HoldInput): void {
  switch (toAvailability(engine)) {
    case "running":
      break;
    case "stopped":
    case "booting":
      throw toStoppedError(engine);
    case "sleeping":
      throw new DomainError("ENGINE_SLEEPING", "the engine is asleep: start it");
    case "unhealthy":
      throw toUnhealthyError(engine);
    case "destroying":
      throw new DomainError("ENGINE_DESTROYING", "the engine is being destroyed");
  }
  if (expectGeneration !== undefined && expectGeneration !== engine.generation) {
    throw new DomainError(
      "GENERATION_CHANGED",
      `the engine is of generation ${engine.generation}, not ${expectGeneration}: it has lost its memory`,
    );
  }
}

function toStoppedError({ status }: UsableEngine): DomainError {
  const message =
    status === "stopping" || status === "stopped"
      ? `the engine is ${status}: start it`
      : `a stop of the ${status} engine was requested: start it`;
  return new DomainError("ENGINE_STOPPED", message);
}

function toUnhealthyError(engine: UsableEngine): DomainError {
  const { statusReason } = engine;
  const message = `the engine has failed (${statusReason ?? "no reason on record"})`;
  if (findStatusReasonCode(statusReason) === "row_tampered") return new DomainError("ROW_TAMPERED", message);
  return new DomainError("ENGINE_UNHEALTHY", message, { retryAfterMs: toRestartMs(engine) });
}

function toHeldEngine(ctx: HoldContext, engine: UsableEngine, hold: Hold): HeldEngine {
  const { endpoint } = engine;
  if (endpoint === null) throw new Error(`engine ${engine.id} is running without an endpoint`);
  const apiKey = ctx.openedKeys.open(engine);
  return { ...hold, engineId: engine.id, generation: engine.generation, endpoint, apiKey };
}
