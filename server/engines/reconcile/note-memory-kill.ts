import { findEngineById } from "../../../db/engines.ts";
import type { BaseContext } from "../../context.ts";
import { toErrorMessage } from "../../errors.ts";
import type { MemoryKills } from "./memory-kills.ts";

type NoteContext = Pick<BaseContext, "db" | "log"> & { memoryKills: MemoryKills };

/** Logs that the kernel killed a process of the engine, and keeps it for the reconcile that observes the result. */
export async function noteMemoryKill(ctx: NoteContext, engineId: string): Promise<void> {
  ctx.memoryKills.add(engineId);
  const row = await findEngineById(ctx.db, engineId).catch((error: unknown) => {
    ctx.log.debug({ engineId, error: toErrorMessage(error) }, "the memory limit is unknown");
    return undefined;
  });
  ctx.log.warn({ engineId, memoryMb: row?.spec.limits.memoryMb }, "an engine ran out of memory");
}
