import { removeExpiredClaims } from "../../db/idempotency.ts";
import { ensureAuditPartitions } from "../../db/audit-log.ts";
import type { AppContext } from "../context.ts";
import { sweepTombstones } from "../engines/sweep-tombstones.ts";
import { toErrorMessage } from "../errors.ts";
import { startLoop, type Loop } from "../loop.ts";
import { ensureTurnPartitions } from "../turns/ensure-turn-partitions.ts";
import { retireTurns } from "../turns/retire-turns.ts";

const INTERVAL_MS = 300_000;

/** What keeps the tables in shape: partitions ahead of time, and what is past its retention gone. */
export function startUpkeepLoop(ctx: AppContext): Loop {
  const chores: [string, () => Promise<unknown>][] = [
    ["turn partitions", () => ensureTurnPartitions(ctx)],
    ["audit partitions", () => ensureAuditPartitions(ctx.db)],
    ["turn retention", () => retireTurns(ctx)],
    ["expired idempotency keys", () => removeExpiredClaims(ctx.db)],
    ["tombstones", () => sweepTombstones(ctx)],
  ];
  const tick = async (signal: AbortSignal) => {
    for (const [chore, run] of chores) {
      if (signal.aborted) return;
      await run().catch((error: unknown) => {
        ctx.log.error({ chore, error: toErrorMessage(error) }, "upkeep failed");
      });
    }
  };
  return startLoop({ name: "upkeep", intervalMs: INTERVAL_MS, clock: ctx.clock, log: ctx.log, tick });
}
