import { dropTurnPartition, listRetiredTurnPartitions } from "../../../db/turn-partitions.ts";
import { deleteOldTurns } from "../../../db/turns.ts";
import type { Config } from "../../config/config.ts";
import type { BaseContext } from "../../context.ts";
import { toErrorMessage } from "../../errors.ts";

type RetireContext = Pick<BaseContext, "raw" | "log"> & { config: Pick<Config, "turnRetentionMs"> };

/** Rows of turns are kept longer than their events: they are a record of past calls, and their ids stay taken. */
export const TURN_ROW_RETENTION_MS = 30 * 24 * 3_600_000;
const ROWS_AT_A_TIME = 1_000;

/**
 * Drops the log's partitions in which every turn ended longer ago than the retention, and deletes old rows. A partition
 * that is locked is left for the next time.
 */
export async function retireTurns(
  ctx: RetireContext,
  signal?: AbortSignal,
): Promise<{ droppedPartitions: number }> {
  const { turnRetentionMs } = ctx.config;
  let droppedPartitions = 0;
  for (const partition of await listRetiredTurnPartitions(ctx.raw, turnRetentionMs)) {
    if (signal?.aborted) return { droppedPartitions };
    try {
      await dropTurnPartition(ctx.raw, partition);
      droppedPartitions += 1;
    } catch (error) {
      const fields = { partition: partition.name, error: toErrorMessage(error) };
      ctx.log.warn(fields, "a partition of the turn log could not be dropped yet");
      // Postgres refuses to detach another partition while one is half-detached.
      break;
    }
  }
  const ageMs = Math.max(TURN_ROW_RETENTION_MS, turnRetentionMs);
  let deletedRows = ROWS_AT_A_TIME;
  while (deletedRows === ROWS_AT_A_TIME) {
    if (signal?.aborted) break;
    deletedRows = await deleteOldTurns(ctx.raw, ageMs, ROWS_AT_A_TIME);
  }
  return { droppedPartitions };
}
