import { afterMs, type EnginePatch, type EngineRowAt } from "../../../db/engines.ts";
import { toErrorMessage } from "../../errors.ts";
import type { ReconcileContext } from "./reconcile-context.ts";
import { toStatusReason, type StatusReason } from "../model/engine-status.ts";
import { recordMove } from "./record-move.ts";

export interface Failure {
  code: StatusReason;
  why: string;
  /** Whether a restart may help. A first boot is never restarted: its caller gets the error instead. */
  retry: boolean;
  /** The next boot makes another container on the same volume. */
  renew?: boolean;
}

const LOG_TAIL = 20;
/** Of the last lines, the end is shown: it says why the process ended. */
const LOG_TAIL_LENGTH = 1_500;

/** Records the reason, with the container's last log lines, and the time of the next restart, if there is one. */
export async function failEngine(ctx: ReconcileContext, row: EngineRowAt, failure: Failure): Promise<void> {
  const lastLines = await findLastLines(ctx, row);
  const why = `${ctx.connections.secrets.hide(failure.why)}${lastLines}`;
  const { delayMs, spent } = planRestart(ctx, row, failure);
  const code = spent ? "restarts_spent" : failure.code;
  const patch: EnginePatch = {
    statusReason: toStatusReason(code, spent ? `${failure.code}: ${why}` : why),
    nextRestartAt: delayMs === null ? null : afterMs(delayMs),
    restartAttempts: row.restartAttempts + (delayMs === null ? 0 : 1),
    healthFailures: 0,
    ...(failure.renew === true && { incarnation: row.incarnation + 1 }),
  };
  ctx.log.warn({ engineId: row.id, code, retryInMs: delayMs }, "engine failed");
  await recordMove(ctx, { row, move: "fail", patch, metadata: { code, nextRestartMs: delayMs } });
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

/**
 * The engine's last log lines, which end the reason. They are without secrets, because callers see the reason. Empty if
 * the container is gone or its log cannot be read.
 */
async function findLastLines(ctx: ReconcileContext, row: EngineRowAt): Promise<string> {
  // Until this boot has started a container, the recorded one belongs to an earlier boot.
  const isOfThisBoot = row.processBeforeBoot !== null || row.status === "running";
  if (row.containerId === null || !isOfThisBoot) return "";
  try {
    const lines = await ctx.runtime.logs(row.containerId, LOG_TAIL);
    const whole = lines.map(({ line }) => line).join("\n");
    const text = ctx.connections.secrets.hideInEnd(whole, LOG_TAIL_LENGTH);
    return text === "" ? "" : `; last log lines:\n${text}`;
  } catch (error) {
    ctx.log.debug({ engineId: row.id, error: toErrorMessage(error) }, "no last log lines");
    return "";
  }
}
