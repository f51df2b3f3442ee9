import { deleteTombstone, listTombstones, type TombstoneRow } from "../../../db/tombstones.ts";
import type { BaseContext } from "../../context.ts";
import { RuntimeFailure, type EngineRuntime } from "../../runtime/engine-runtime.ts";

type TombstoneContext = Pick<BaseContext, "db" | "log"> & { runtime: EngineRuntime };

/**
 * Removes containers and volumes that a late runtime call created after their engine was destroyed. Deletes a
 * tombstone when an observation shows neither.
 */
export async function checkTombstones(ctx: TombstoneContext): Promise<void> {
  for (const tombstone of await listTombstones(ctx.db, ctx.runtime.host)) {
    try {
      if (await isClear(ctx, tombstone)) await deleteTombstone(ctx.db, tombstone.engineId);
    } catch (error) {
      if (!(error instanceof RuntimeFailure)) throw error;
      const { engineId } = tombstone;
      ctx.log.warn({ engineId, failure: error.kind, error: error.message }, "tombstone kept");
      if (error.kind === "unreachable" || error.kind === "changed") return;
    }
  }
}

async function isClear(ctx: TombstoneContext, tombstone: TombstoneRow): Promise<boolean> {
  const containers = await ctx.runtime.observe(tombstone.engineId);
  const hasData = await ctx.runtime.hasData(tombstone.volumeName);
  // Absence counts only if the daemon is the one with our marker, and nothing is removed from another one.
  await ctx.runtime.check();
  for (const container of containers) await ctx.runtime.remove(container.containerId);
  if (hasData) await ctx.runtime.removeData(tombstone.volumeName);
  return containers.length === 0 && !hasData;
}
