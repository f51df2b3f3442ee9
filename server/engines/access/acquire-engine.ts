import { findEngine, type UsableEngine } from "../../../db/engines.ts";
import { abortable } from "../../time/abortable.ts";
import type { BaseContext } from "../../context.ts";
import type { Reconciler } from "../reconcile/reconciler.ts";
import { Deadline } from "../../time/deadline.ts";
import { DomainError } from "../../errors.ts";
import type { OpenedKeys } from "../../keys/opened-keys.ts";
import { toEndpoint } from "../model/engine-endpoint.ts";
import type { Hold, EngineHolds } from "./engine-holds.ts";
import { engineNotFound } from "../operations/get-engine.ts";

export interface AcquireEngineInput {
  productId: string;
  userId: string;
  /** How long a provisioning or starting engine, or a closed gate, may be waited for. */
  timeoutMs: number;
  /** Refuse with GENERATION_CHANGED when the engine is of another generation. */
  expectGeneration?: number | undefined;
  signal?: AbortSignal | undefined;
  /** Reads the engine in place of the first look at it, for a caller with something to do in the same round trip. */
  findFirst?: (() => Promise<UsableEngine | undefined>) | undefined;
  /** Called each time before a boot or a closed gate is waited for: what `findFirst` did for the engine is early now. */
  onBlocked?: (() => Promise<void>) | undefined;
}

/** A running engine and the right to use it; disposing gives the right back. */
export interface HeldEngine extends Disposable, Pick<Hold, "interrupted" | "release"> {
  engineId: string;
  generation: number;
  /** Base URL, no trailing slash. */
  endpoint: string;
  /** Plaintext, for the X-Engine-Key header and nothing else. */
  apiKey: string;
}

export interface AcquireContext extends Pick<BaseContext, "db" | "clock"> {
  holds: EngineHolds;
  reconciler: Reconciler;
  openedKeys: OpenedKeys;
}

const BLOCKED_RETRY_MS = 500;

/**
 * Waits while the engine boots or a verb has closed its gate. Throws ENGINE_NOT_FOUND, ENGINE_STOPPED,
 * ENGINE_UNHEALTHY, ENGINE_DESTROYING, GENERATION_CHANGED, or DEADLINE_EXCEEDED when it did not become usable
 * in time.
 */
export async function acquireEngine(ctx: AcquireContext, input: AcquireEngineInput): Promise<HeldEngine> {
  using deadline = new Deadline(input.timeoutMs, [input.signal]);
  const { signal } = deadline;
  try {
    signal.throwIfAborted();
    for (let find = input.findFirst; ; find = undefined) {
      const use = await tryUse(ctx, { ...input, find }, signal);
      if (use !== undefined) return use;
      signal.throwIfAborted();
    }
  } catch (error) {
    if (!deadline.hasPassed || error instanceof DomainError) throw error;
    throw new DomainError(
      "DEADLINE_EXCEEDED",
      `the engine did not become usable within ${input.timeoutMs} ms`,
      {
        retryAfterMs: 1_000,
      },
    );
  }
}

/** undefined: it was booting, or a gate moved between the read and the hold; read again. */
async function tryUse(
  ctx: AcquireContext,
  input: AcquireEngineInput & { find: AcquireEngineInput["findFirst"] },
  signal: AbortSignal,
): Promise<HeldEngine | undefined> {
  const epoch = ctx.holds.gateEpoch;
  const key = { productId: input.productId, userId: input.userId };
  const row = await abortable(input.find?.() ?? findEngine(ctx.db, key), signal);
  if (row === undefined) throw engineNotFound();
  if (isBooting(row)) {
    await input.onBlocked?.();
    // The boot is somebody's drive already, or becomes ours: it is shared.
    const outcome = await abortable(ctx.reconciler.join(row.id), signal);
    // Nobody can drive it just now; asking again at once would only keep everybody busy.
    if (outcome !== "settled" && outcome !== "gone") await ctx.clock.sleep(BLOCKED_RETRY_MS, signal);
    return undefined;
  }
  if (ctx.holds.isGated(row.id)) await input.onBlocked?.();
  const hold = await ctx.holds.acquire(row.id, signal);
  try {
    if (ctx.holds.gateEpoch !== epoch) {
      hold.release();
      return undefined;
    }
    refuseUnusable(row, input);
    return toUse(ctx, row, hold);
  } catch (error) {
    hold.release();
    throw error;
  }
}

function isBooting(row: UsableEngine): boolean {
  return row.desired === "running" && (row.status === "provisioning" || row.status === "starting");
}

function refuseUnusable(row: UsableEngine, input: AcquireEngineInput): void {
  switch (row.status) {
    case "running":
      break;
    case "stopping":
    case "stopped":
    case "provisioning":
    case "starting":
      throw new DomainError("ENGINE_STOPPED", `the engine is ${row.status}; start it`);
    case "sleeping":
      throw new DomainError("ENGINE_SLEEPING", "the engine is asleep; wake it");
    case "failed":
      throw toUnhealthyError(row);
    case "destroying":
      throw new DomainError("ENGINE_DESTROYING", "the engine is being destroyed");
  }
  if (input.expectGeneration !== undefined && input.expectGeneration !== row.generation) {
    throw new DomainError(
      "GENERATION_CHANGED",
      `the engine is of generation ${row.generation}, not ${input.expectGeneration}: it has lost what it held in memory`,
    );
  }
}

function toUnhealthyError(row: UsableEngine): DomainError {
  const waitMs = row.nextRestartAt === null ? undefined : Date.parse(row.nextRestartAt) - Date.now();
  return new DomainError(
    "ENGINE_UNHEALTHY",
    `the engine has failed (${row.statusReason ?? "no reason on record"})`,
    {
      retryAfterMs: waitMs === undefined ? undefined : Math.max(1_000, waitMs),
    },
  );
}

function toUse(ctx: AcquireContext, row: UsableEngine, hold: Hold): HeldEngine {
  const endpoint = toEndpoint(row);
  if (endpoint === null) throw new Error(`engine ${row.id} is running without a port`);
  return {
    engineId: row.id,
    generation: row.generation,
    endpoint,
    apiKey: ctx.openedKeys.open(row.keySealed, row.id),
    interrupted: hold.interrupted,
    release: () => {
      hold.release();
    },
    [Symbol.dispose]: () => {
      hold.release();
    },
  };
}
