import { listTurnRows } from "../../../db/turns.ts";
import { fromCursor, toPage, type Page } from "../../page-cursor.ts";
import { toTurn, type Turn } from "../model/turn-view.ts";
import type { TurnContext } from "../turn-context.ts";

export interface ListTurnsInput {
  productId: string;
  userId: string;
  cursor?: string | undefined;
  limit: number;
}

/** A user's turns, newest first. New turns do not move later pages. */
export async function listTurns(
  ctx: Pick<TurnContext, "raw" | "turns">,
  { productId, userId, cursor, limit }: ListTurnsInput,
): Promise<Page<Turn>> {
  const position = fromCursor(cursor, { test: isPosition });
  const [startedAt = "", turnId = ""] = position?.split("/") ?? [];
  const after = position === undefined ? undefined : { startedAt, turnId };
  const rows = await listTurnRows(ctx.raw, { productId, userId, after, limit: limit + 1 });
  return toPage(rows, limit, {
    item: (row) => toTurn(ctx.turns, row),
    position: (row) => `${row.startedAt}/${row.turnId}`,
  });
}

const POSITION =
  /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})?\+00\/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** Also checks that Postgres has the instant: no 30 February, no 24:00, no year 0. */
function isPosition(position: string): boolean {
  if (!POSITION.test(position)) return false;
  const iso = position.slice(0, "2026-11-23 02:54:10".length).replace(" ", "T");
  const at = new Date(`${iso}Z`);
  return !Number.isNaN(at.getTime()) && at.toISOString().startsWith(iso) && !iso.startsWith("0000");
}
