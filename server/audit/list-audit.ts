import { listAuditRows } from "../../db/audit-log.ts";
import { fromCursor, toPage, type Page } from "../page-cursor.ts";
import type { BaseContext } from "../context.ts";
import type { AuditAction } from "./audit-entry.ts";
import { toAuditRow, type AuditRow } from "./audit-row.ts";

export interface ListAuditInput {
  /** A product's id, or `platform`. */
  scope: string;
  userId?: string | undefined;
  action?: AuditAction | undefined;
  /** Rows from this seq on. */
  fromSeq?: number | undefined;
  cursor?: string | undefined;
  limit: number;
}

/** Lists the newest rows first. Rows that are appended between two pages do not shift the pages. */
export async function listAudit(
  ctx: Pick<BaseContext, "db">,
  input: ListAuditInput,
): Promise<Page<AuditRow>> {
  const { cursor, limit, ...filters } = input;
  const beforeSeq = fromCursor(cursor, parseSeq);
  const rows = await listAuditRows(ctx.db, { ...filters, beforeSeq, limit: limit + 1 });
  return toPage(rows, limit, { item: toAuditRow, position: (row) => String(row.seq) });
}

function parseSeq(text: string): number | undefined {
  return /^[1-9][0-9]{0,15}$/.test(text) ? Number(text) : undefined;
}
