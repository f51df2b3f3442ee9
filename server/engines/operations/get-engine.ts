import { findEngine, type EngineRow } from "../../../db/engines.ts";
import type { BaseContext } from "../../context.ts";
import { DomainError } from "../../errors.ts";
import { toEngine, type Engine } from "../model/engine-view.ts";

/** Names an engine: a user of a product has at most one. */
export interface EngineUser {
  productId: string;
  userId: string;
}

/** Throws ENGINE_NOT_FOUND. */
export async function getEngine(ctx: Pick<BaseContext, "db" | "config">, input: EngineUser): Promise<Engine> {
  return toEngine(ctx, await getEngineRow(ctx, input));
}

/** Throws ENGINE_NOT_FOUND. */
export async function getEngineRow(ctx: Pick<BaseContext, "db">, input: EngineUser): Promise<EngineRow> {
  const row = await findEngine(ctx.db, { productId: input.productId, userId: input.userId });
  if (row === undefined) throw engineNotFound();
  return row;
}

export function engineNotFound(): DomainError {
  return new DomainError("ENGINE_NOT_FOUND", "this user has no engine: provision one");
}

export function engineDestroying(retryAfterMs?: number): DomainError {
  const message = "this user's engine is being destroyed: provision another one after that";
  return new DomainError("ENGINE_DESTROYING", message, { retryAfterMs });
}
