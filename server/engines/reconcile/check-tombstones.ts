import { deleteTombstone, listTombstones, type TombstoneRow } from "../../../db/tombstones.ts";
import type { BaseContext } from "../../context.ts";
import { RuntimeFailure, type EngineRuntime } from "../../runtime/engine-runtime.ts";

type SweepContext = Pick<BaseContext, "db" | "log"> & { runtime: EngineRuntime };

/**
 * Looks once more for what a call that was cut off may have made after its engine was destroyed, removes it, and
 * forgets the engine when a look sees nothing.
 */
export async function checkTombstones(ctx: SweepContext): Promise<void> {
  for (const tombstone of await listTombstones(ctx.db, ctx.runtime.host)) {
    try {
      if (await isClear(ctx, tombstone)) await deleteTombstone(ctx.db, tombstone.engineId);
    } catch (error) {
      if (!(error instanceof RuntimeFailure)) throw error;
      ctx.log.warn(
        { engineId: tombstone.engineId, failure: error.kind, error: error.message },
        "tombstone kept",
      );
      if (error.kind === "unreachable" || error.kind === "changed") return;
    }
  }
}

async function isClear(ctx: SweepContext, tombstone: TombstoneRow): Promise<boolean> {
  const containers = await ctx.runtime.observe(tombstone.engineId);
  for (const container of containers) await ctx.runtime.remove(container.containerId);
  const hasData = await ctx.runtime.hasData(tombstone.volumeName);
  if (hasData) await ctx.runtime.removeData(tombstone.volumeName);
  if (containers.length > 0 || hasData) return false;
  await ctx.runtime.check();
  return true;
}
