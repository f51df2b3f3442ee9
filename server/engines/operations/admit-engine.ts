import type { ShownEngine } from "../../../db/shown-engines.ts";
import { DomainError } from "../../errors.ts";
import { NO_RECORD } from "../../idempotency/idempotency-record.ts";
import { getProductPolicy } from "../../products/get-product.ts";
import type { EngineReads } from "../access/engine-reads.ts";
import { toAvailability, toRestartMs, type Availability } from "../model/engine-availability.ts";
import { toEngine, type Engine } from "../model/engine-view.ts";
import type { OperationContext } from "./operation-context.ts";
import { provisionEngine } from "./provision-engine.ts";

/** Why an engine takes no calls now. */
export const NOT_ADMITTED_REASONS = [
  "engine_not_found",
  "engine_sleeping",
  "engine_stopped",
  "engine_provisioning",
  "engine_unhealthy",
  "engine_destroying",
] as const;
export type NotAdmittedReason = (typeof NOT_ADMITTED_REASONS)[number];

export type EngineAdmission =
  | { admitted: true; engine: Engine }
  | { admitted: false; reason: NotAdmittedReason; retryAfterMs?: number | undefined };

export interface AdmitEngineInput {
  productId: string;
  userId: string;
  /** Makes the engine if the user has none. The call does not wait for its boot. */
  autoProvision: boolean;
  /** The engine as the call's admission has read it. undefined: the user has none. */
  engine: ShownEngine | undefined;
}

const BOOT_RETRY_MS = 1_000;
const DESTROY_RETRY_MS = 2_000;

const REFUSALS: Readonly<Record<Exclude<Availability, "running">, Refusal>> = {
  booting: { reason: "engine_provisioning", toRetryMs: () => BOOT_RETRY_MS },
  sleeping: { reason: "engine_sleeping" },
  stopped: { reason: "engine_stopped" },
  unhealthy: { reason: "engine_unhealthy", toRetryMs: toRestartMs },
  destroying: { reason: "engine_destroying", toRetryMs: () => DESTROY_RETRY_MS },
};

interface Refusal {
  reason: NotAdmittedReason;
  /** undefined: waiting does not help. */
  toRetryMs?: (engine: ShownEngine) => number | undefined;
}

/**
 * Says whether the user's engine takes calls now. Throws QUOTA_EXCEEDED and what else `provisionEngine` throws, if it has
 * to make the engine.
 */
export async function admitEngine(
  ctx: OperationContext & { shownEngines: Pick<EngineReads<ShownEngine>, "find"> },
  { engine, autoProvision, ...user }: AdmitEngineInput,
): Promise<EngineAdmission> {
  if (engine !== undefined || !autoProvision) return toAdmission(ctx, engine);
  const policy = await getProductPolicy(ctx, user);
  try {
    // Without an idempotency record: a repeated call finds the engine.
    await provisionEngine(ctx, { ...user, policy, wait: false, idempotency: NO_RECORD });
  } catch (error) {
    if (!(error instanceof DomainError && error.reason === "ENGINE_ALREADY_EXISTS")) throw error;
  }
  return toAdmission(ctx, await ctx.shownEngines.find(user));
}

function toAdmission(
  ctx: Pick<OperationContext, "config">,
  engine: ShownEngine | undefined,
): EngineAdmission {
  if (engine === undefined) return { admitted: false, reason: "engine_not_found" };
  const availability = toAvailability(engine);
  if (availability === "running") return { admitted: true, engine: toEngine(ctx, engine) };
  const { reason, toRetryMs } = REFUSALS[availability];
  const retryAfterMs = toRetryMs?.(engine);
  return { admitted: false, reason, ...(retryAfterMs !== undefined && { retryAfterMs }) };
}
