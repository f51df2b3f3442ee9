import { listVolumeLimits } from "../../../db/volume-limits.ts";
import type { BaseContext } from "../../context.ts";
import type { EngineRuntime } from "../../runtime/engine-runtime.ts";
import type { FullVolume, FullVolumes } from "./full-volumes.ts";

const MEBIBYTE = 1024 * 1024;

export interface MeasureVolumesContext extends Pick<BaseContext, "db" | "config" | "log"> {
  runtime: Pick<EngineRuntime, "host" | "measureVolumes">;
  fullVolumes: FullVolumes;
}

/**
 * Finds the engines whose volumes are over their limit. Docker's local volumes have no quota, so a volume can grow
 * between two measurements. Without any limit nothing is measured, because the daemon reads every file's size.
 */
export async function measureVolumes(ctx: MeasureVolumesContext): Promise<void> {
  const defaultMb = ctx.config.engineVolumeMb;
  const limits = await listVolumeLimits(ctx.db, ctx.runtime.host);
  const limited = limits.flatMap(({ engineId, volumeName, limitMb }) => {
    const bound = limitMb ?? defaultMb;
    return bound === undefined ? [] : [{ engineId, volumeName, limitMb: bound }];
  });
  const sizes = limited.length === 0 ? new Map<string, number>() : await ctx.runtime.measureVolumes();
  const full = new Map<string, FullVolume>();
  for (const { engineId, volumeName, limitMb } of limited) {
    const usedMb = Math.ceil((sizes.get(volumeName) ?? 0) / MEBIBYTE);
    if (usedMb > limitMb) full.set(engineId, { usedMb, limitMb });
  }
  for (const engineId of ctx.fullVolumes.replace(full)) {
    ctx.log.warn({ engineId, ...full.get(engineId) }, "an engine's volume is over its limit");
  }
}
