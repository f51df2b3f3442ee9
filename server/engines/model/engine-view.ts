import type { EngineRow } from "../../../db/engines.ts";
import type { BaseContext } from "../../context.ts";
import { toEndpoint } from "./engine-endpoint.ts";
import type { Desired, EngineStatus } from "./engine-status.ts";
import { toDefaultImage, toEngineSpec, toSpecHash } from "./engine-spec.ts";

/** An engine as callers see it. Instants are ISO strings. */
export interface Engine {
  engineId: string;
  userId: string;
  status: EngineStatus;
  /** `CODE: text`, or null while all is well. */
  statusReason: string | null;
  sleepDepth: "paused" | "stopped" | null;
  desired: Desired;
  /** From 1; moves at least once per new process. */
  generation: number;
  image: string;
  /** What the image resolved to; null until the first boot has asked. */
  imageId: string | null;
  /** Where a product may call the engine directly; null while it has no port. */
  url: string | null;
  keyPrefix: string;
  /** How long the last boot took, in milliseconds. */
  bootMs: number | null;
  /** New processes after the first, ours and the daemon's doing. */
  restarts: number;
  /** null in `failed`: given up. */
  nextRestartAt: string | null;
  /** Whether today's defaults would make another container. */
  drift: boolean;
  createdAt: string;
  updatedAt: string;
  lastHealthAt: string | null;
  lastActivityAt: string | null;
}

export function toEngine(ctx: Pick<BaseContext, "config">, row: EngineRow): Engine {
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
    url: toEndpoint(row),
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

function hasDrift(ctx: Pick<BaseContext, "config">, row: EngineRow): boolean {
  const { imageFrom, imageId, limitOverrides } = row.spec;
  const image = imageFrom === "default" ? toDefaultImage(ctx.config) : row.spec.image;
  const today = { ...toEngineSpec(ctx.config, { image, imageFrom, limitOverrides }), imageId };
  return toSpecHash(today) !== toSpecHash(row.spec);
}
