import { afterMs, type EnginePatch, type EngineRowAt } from "../../../db/engines.ts";
import { toErrorMessage } from "../../errors.ts";
import type { ReconcileContext } from "./reconcile-context.ts";
import { toStatusReason, type StatusReason } from "../model/engine-status.ts";
import { recordMove } from "./record-move.ts";

export interface Failure {
  code: StatusReason;
  why: string;
  /** Whether another try may help. A first boot is never tried again by itself: its caller is told instead. */
  retry: boolean;
}

const LOG_TAIL = 20;

/** Records why, with the container's last words, and when the next try is, if there is one. */
export async function failEngine(ctx: ReconcileContext, row: EngineRowAt, failure: Failure): Promise<void> {
  const lastLines = await findLastLines(ctx, row);
  const said = lastLines === "" ? failure.why : `${failure.why}; last log lines:\n${lastLines}`;
  const why = hidePassedThrough(ctx, said);
  const next = planRestart(ctx, row, failure);
  const code = next.spent ? "restarts_spent" : failure.code;
  const patch: EnginePatch = {
    statusReason: toStatusReason(code, next.spent ? `${failure.code}: ${why}` : why),
    nextRestartAt: next.delayMs === null ? null : afterMs(next.delayMs),
    restartAttempts: next.delayMs === null ? row.restartAttempts : row.restartAttempts + 1,
    healthFailures: 0,
  };
  ctx.log.warn({ engineId: row.id, code, retryInMs: next.delayMs }, "engine failed");
  const metadata = { code, nextRestartMs: next.delayMs };
  await recordMove(ctx, { row, move: "fail", patch, metadata });
}

function planRestart(
  ctx: ReconcileContext,
  row: EngineRowAt,
  failure: Failure,
): { delayMs: number | null; spent: boolean } {
  if (!failure.retry || row.firstReadyAt === null) return { delayMs: null, spent: false };
  const { restartMaxAttempts, restartBackoffBaseMs, restartBackoffMaxMs } = ctx.config;
  if (row.restartAttempts >= restartMaxAttempts) return { delayMs: null, spent: true };
  const delayMs = Math.min(restartBackoffMaxMs, restartBackoffBaseMs * 2 ** row.restartAttempts);
  return { delayMs, spent: false };
}

/** Best effort: a container that is gone has nothing more to say. */
async function findLastLines(ctx: ReconcileContext, row: EngineRowAt): Promise<string> {
  // Before this boot has started anything, the container on record is one of an earlier boot.
  const isOfThisBoot = row.processBeforeBoot !== null || row.status === "running";
  if (row.containerId === null || !isOfThisBoot) return "";
  try {
    const lines = await ctx.runtime.logs(row.containerId, LOG_TAIL);
    return lines.map((line) => line.line).join("\n");
  } catch (error) {
    ctx.log.debug({ engineId: row.id, error: toErrorMessage(error) }, "no last log lines");
    return "";
  }
}

/** What an engine says may hold the values that were passed through to it, and the reason is shown to callers. */
export function hidePassedThrough(ctx: Pick<ReconcileContext, "config">, text: string): string {
  const secrets = Object.values(ctx.config.passthrough).filter((value) => value.length >= 4);
  return secrets.reduce((shown, secret) => shown.replaceAll(secret, "[hidden]"), text);
}
