import { listOperatorRows } from "../../db/operators.ts";
import type { BaseContext } from "../context.ts";
import { fromCursor, parseId, toPage, type Page } from "../page-cursor.ts";
import { toOperatorKey, type Key } from "./key-view.ts";

/** Lists all operator keys in order of issue, revoked and expired keys too. The bootstrap key is not among them. */
export async function listOperators(
  ctx: Pick<BaseContext, "db">,
  input: { cursor?: string | undefined; limit: number },
): Promise<Page<Key>> {
  const afterId = fromCursor(input.cursor, parseId);
  const rows = await listOperatorRows(ctx.db, { afterId, limit: input.limit + 1 });
  return toPage(rows, input.limit, { item: toOperatorKey, position: (row) => row.id });
}
