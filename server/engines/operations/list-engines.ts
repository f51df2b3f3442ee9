import { listEngineRows } from "../../../db/engines.ts";
import { fromCursor, parseId, toPage, type Page } from "../../page-cursor.ts";
import type { BaseContext } from "../../context.ts";
import type { EngineStatus } from "../model/engine-status.ts";
import { toEngine, type Engine } from "../model/engine-view.ts";

export interface ListEnginesInput {
  productId: string;
  status?: EngineStatus | undefined;
  cursor?: string | undefined;
  limit: number;
}

/** In order of creation, so that inserts and deletes between two pages never make the list skip or repeat an engine. */
export async function listEngines(
  ctx: Pick<BaseContext, "db" | "config">,
  input: ListEnginesInput,
): Promise<Page<Engine>> {
  const rows = await listEngineRows(ctx.db, {
    productId: input.productId,
    status: input.status,
    afterId: fromCursor(input.cursor, parseId),
    limit: input.limit + 1,
  });
  return toPage(rows, input.limit, { item: (row) => toEngine(ctx, row), position: (row) => row.id });
}
