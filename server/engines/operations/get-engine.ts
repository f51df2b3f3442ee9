import { findEngine, type EngineRow, type EngineUser } from "../../../db/engines.ts";
import type { BaseContext } from "../../context.ts";
import { engineNotFound } from "../model/absent-engine-errors.ts";
import { toEngine, type Engine } from "../model/engine-view.ts";

/** Throws ENGINE_NOT_FOUND. */
export async function getEngine(ctx: Pick<BaseContext, "db" | "config">, input: EngineUser): Promise<Engine> {
  return toEngine(ctx, await getEngineRow(ctx, input));
}

/** Throws ENGINE_NOT_FOUND. */
export async function getEngineRow(ctx: Pick<BaseContext, "db">, input: EngineUser): Promise<EngineRow> {
  const row = await findEngine(ctx.db, input);
  if (row === undefined) throw engineNotFound();
  return row;
}
