import { DomainError } from "./errors.ts";

/** Encodes a position in a list. Cursors are opaque to callers, so that the order of a list can change. */
export function toCursor(position: string): string {
  return Buffer.from(position, "utf8").toString("base64url");
}

/**
 * Decodes the position in a cursor of `toCursor`; undefined without a cursor.
 *
 * @throws INVALID_INPUT if the position does not match `pattern`.
 */
export function fromCursor(cursor: string | undefined, pattern: Pick<RegExp, "test">): string | undefined {
  if (cursor === undefined) return undefined;
  const position = Buffer.from(cursor, "base64url").toString("utf8");
  if (pattern.test(position)) return position;
  const message = "is not a cursor of this list: pass `nextCursor` of its last page";
  throw new DomainError("INVALID_INPUT", `cursor ${message}`, { issues: [{ path: "cursor", message }] });
}

/** Our ids: the positions in a list that is ordered by id. */
export const UUID_PATTERN = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
/** The positions in a list that is ordered by sequence number. */
export const SEQ_POSITION = /^[1-9][0-9]{0,15}$/;

export interface Page<Item> {
  items: Item[];
  /** null on the last page. */
  nextCursor: string | null;
}

/** Makes a page of `limit` rows. Query `limit + 1` rows: the extra one tells that another page follows. */
export function toPage<Row, Item>(
  rows: readonly Row[],
  limit: number,
  to: { item: (row: Row) => Item; position: (row: Row) => string },
): Page<Item> {
  const shown = rows.slice(0, limit);
  const last = shown.at(-1);
  const hasMore = rows.length > limit && last !== undefined;
  return { items: shown.map(to.item), nextCursor: hasMore ? toCursor(to.position(last)) : null };
}
