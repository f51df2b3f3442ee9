import { removeExpiredIdempotencyRecords } from "../../db/idempotency.ts";
import { ensureAuditPartitions } from "../../db/audit-log.ts";
import { SYSTEM_ACTOR } from "../audit/audit-entry.ts";
import type { AppContext } from "../compose.ts";
import { destroyEngineIfAny } from "../engines/operations/destroy-engine-if-any.ts";
import { checkTombstones } from "../engines/reconcile/check-tombstones.ts";
import { toErrorMessage } from "../errors.ts";
import { startLoop, type Loop } from "../time/loop.ts";
import { finishRemovals } from "../products/finish-removals.ts";
import { ensureTurnPartitions } from "../turns/log/ensure-turn-partitions.ts";
import { retireTurns } from "../turns/log/retire-turns.ts";

const INTERVAL_MS = 300_000;

/** What keeps the tables in shape: partitions ahead of time, and what is past its retention gone. */
export function startUpkeepLoop(ctx: AppContext): Loop {
  const chores: [string, (signal: AbortSignal) => Promise<unknown>][] = [
    ["turn partitions", () => ensureTurnPartitions(ctx)],
    ["audit partitions", () => ensureAuditPartitions(ctx.db)],
    ["turn retention", (signal) => retireTurns(ctx, signal)],
    ["expired idempotency keys", () => removeExpiredIdempotencyRecords(ctx.db)],
    ["tombstones", () => checkTombstones(ctx)],
    ["half-removed products", () => finishProductRemovals(ctx)],
  ];
  const tick = async (signal: AbortSignal) => {
    for (const [chore, run] of chores) {
      if (signal.aborted) return;
      await run(signal).catch((error: unknown) => {
        ctx.log.error({ chore, error: toErrorMessage(error) }, "upkeep failed");
      });
    }
  };
  return startLoop({ name: "upkeep", intervalMs: INTERVAL_MS, clock: ctx.clock, log: ctx.log, tick });
}

/** A removal that a crash cut short goes on: its product takes no new engines, but the old ones may still be there. */
async function finishProductRemovals(ctx: AppContext): Promise<void> {
  const call = { ...ctx, actor: SYSTEM_ACTOR, requestId: null };
  await finishRemovals(call, { destroyEngine: (engine) => destroyEngineIfAny(call, engine) });
}
