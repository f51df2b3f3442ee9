import { findEngine, type EngineRow, type EngineUser } from "../../../db/engines.ts";
import type { ShownEngine } from "../../../db/shown-engines.ts";
import type { BaseContext } from "../../context.ts";
import type { EngineReads } from "../access/engine-reads.ts";
import { engineNotFound } from "../model/absent-engine-errors.ts";
import { toEngine, type Engine } from "../model/engine-view.ts";

/** Throws ENGINE_NOT_FOUND. */
export async function getEngine(
  ctx: Pick<BaseContext, "config"> & { shownEngines: EngineReads<ShownEngine> },
  input: EngineUser,
): Promise<Engine> {
  const row = await ctx.shownEngines.find(input);
  if (row === undefined) throw engineNotFound();
  return toEngine(ctx, row);
}

/** Throws ENGINE_NOT_FOUND. */
export async function getEngineRow(ctx: Pick<BaseContext, "db">, input: EngineUser): Promise<EngineRow> {
  const row = await findEngine(ctx.db, input);
  if (row === undefined) throw engineNotFound();
  return row;
}
