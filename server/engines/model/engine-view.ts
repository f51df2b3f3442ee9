import { isDeepStrictEqual } from "node:util";
import type { ShownEngine } from "../../../db/shown-engines.ts";
import type { BaseContext } from "../../context.ts";
import type { Desired, EngineStatus } from "./engine-status.ts";
import { toDefaultImage, toEngineSpec } from "./engine-spec.ts";

/** An engine in the API. Instants are ISO strings. */
export interface Engine {
  engineId: string;
  userId: string;
  status: EngineStatus;
  /** `CODE: text`, or null when there is no problem. */
  statusReason: string | null;
  sleepDepth: "paused" | "stopped" | null;
  desired: Desired;
  /** Starts at 1; grows at least once for each new process. */
  generation: number;
  image: string;
  /** The id that the image resolved to; null until the image was resolved. */
  imageId: string | null;
  /** A product may call the engine directly at this base URL; null while the engine has no address. */
  url: string | null;
  keyPrefix: string;
  /** Duration of the last boot, in milliseconds. */
  bootMs: number | null;
  /** New processes after the first, whether we or the daemon started them. */
  restarts: number;
  /** null in `failed`: there will be no restart. */
  nextRestartAt: string | null;
  /** Whether the present defaults would make a different container. */
  drift: boolean;
  createdAt: string;
  updatedAt: string;
  lastHealthAt: string | null;
  lastActivityAt: string | null;
}

export function toEngine(ctx: Pick<BaseContext, "config">, row: ShownEngine): Engine {
  return {
    engineId: row.id,
    userId: row.userId,
    status: row.status,
    statusReason: row.statusReason,
    sleepDepth: null,
    desired: row.desired,
    generation: row.generation,
    image: row.spec.image,
    imageId: row.spec.imageId,
    url: row.endpoint,
    keyPrefix: row.keyPrefix,
    bootMs: row.bootMs,
    restarts: row.restarts,
    nextRestartAt: toIso(row.nextRestartAt),
    drift: hasDrift(ctx, row),
    createdAt: new Date(row.createdAt).toISOString(),
    updatedAt: new Date(row.updatedAt).toISOString(),
    lastHealthAt: toIso(row.lastHealthAt),
    lastActivityAt: toIso(row.lastActivityAt),
  };
}

function toIso(at: string | null): string | null {
  return at === null ? null : new Date(at).toISOString();
}

function hasDrift(ctx: Pick<BaseContext, "config">, row: ShownEngine): boolean {
  const { imageFrom, imageId, limitOverrides, internal } = row.spec;
  const image = imageFrom === "default" ? toDefaultImage(ctx.config) : row.spec.image;
  const today = {
    ...toEngineSpec(ctx.config, { image, imageFrom, limitOverrides, ...(internal && { internal }) }),
    imageId,
  };
  return !isDeepStrictEqual(today, row.spec);
}
