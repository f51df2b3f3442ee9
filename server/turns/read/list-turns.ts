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

/** A user's turns, newest first. A new turn never moves another turn to a later page. */
export async function listTurns(
  ctx: Pick<TurnContext, "raw" | "turns" | "seals">,
  { productId, userId, cursor, limit }: ListTurnsInput,
): Promise<Page<Turn>> {
  const after = fromCursor(cursor, parsePosition);
  const rows = await listTurnRows(ctx.raw, { productId, userId, after, limit: limit + 1 });
  const opened = await Promise.all(rows.map(async (row) => ({ row, end: await ctx.seals.readEnd(row) })));
  return toPage(opened, limit, {
    item: ({ row, end }) => toTurn(ctx.turns, row, end),
    position: ({ row }) => `${row.startedAt}/${row.turnId}`,
  });
}

const POSITION =
  /^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})?\+00)\/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$/;

function parsePosition(text: string): { startedAt: string; turnId: string } | undefined {
  const [, startedAt, turnId] = POSITION.exec(text) ?? [];
  if (startedAt === undefined || turnId === undefined || !isInstant(startedAt)) return undefined;
  return { startedAt, turnId };
}

/** Whether Postgres has this instant: no 30 February, no 24:00, no year 0. */
function isInstant(startedAt: string): boolean {
  const iso = startedAt.slice(0, "2026-11-23 02:54:10".length).replace(" ", "T");
  const at = new Date(`${iso}Z`);
  return !Number.isNaN(at.getTime()) && at.toISOString().startsWith(iso) && !iso.startsWith("0000");
}
