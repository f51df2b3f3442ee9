import { listTurnRows, type TurnRow } from "../../../db/turns.ts";
import { DomainError } from "../../errors.ts";
import { toTurn, type Turn } from "../model/turn-view.ts";
import type { TurnContext } from "../turn-context.ts";

export interface ListTurnsInput {
  productId: string;
  userId: string;
  cursor?: string | undefined;
  /** 100 by default, 1,000 at most. */
  limit?: number | undefined;
}

const DEFAULT_LIMIT = 100;
const MAX_LIMIT = 1_000;

/** A user's turns, newest first. New turns do not move later pages. */
export async function listTurns(
  ctx: Pick<TurnContext, "raw" | "turns">,
  input: ListTurnsInput,
): Promise<{ items: Turn[]; nextCursor: string | null }> {
  const limit = Math.min(Math.max(input.limit ?? DEFAULT_LIMIT, 1), MAX_LIMIT);
  const { productId, userId, cursor } = input;
  const after = cursor === undefined ? undefined : parseCursor(cursor);
  const rows = await listTurnRows(ctx.raw, { productId, userId, after, limit: limit + 1 });
  const page = rows.slice(0, limit);
  const last = page.at(-1);
  return {
    items: page.map((row) => toTurn(ctx.turns, row)),
    nextCursor: rows.length > limit && last ? toCursor(last) : null,
  };
}

function toCursor(row: TurnRow): string {
  return Buffer.from(`${row.startedAt}/${row.turnId}`).toString("base64url");
}

const CURSOR =
  /^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})?\+00)\/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$/;

function parseCursor(cursor: string): { startedAt: string; turnId: string } {
  const [, startedAt, turnId] = CURSOR.exec(Buffer.from(cursor, "base64url").toString("utf8")) ?? [];
  if (startedAt === undefined || turnId === undefined || !isInstant(startedAt)) {
    const message = "is not one that this procedure gave out";
    throw new DomainError("INVALID_INPUT", `cursor ${message}`, { issues: [{ path: "cursor", message }] });
  }
  return { startedAt, turnId };
}

/** Whether Postgres has this instant: no 30 February, no 24:00, no year 0. */
function isInstant(startedAt: string): boolean {
  const iso = startedAt.slice(0, "2026-11-23 02:54:10".length).replace(" ", "T");
  const at = new Date(`${iso}Z`);
  return !Number.isNaN(at.getTime()) && at.toISOString().startsWith(iso) && !iso.startsWith("0000");
}
