import { DomainError } from "./errors.ts";

/** Opaque to callers, so that what a list is ordered by can change. */
export function toCursor(position: string): string {
  return Buffer.from(position, "utf8").toString("base64url");
}

/**
 * The position behind a cursor that `toCursor` made; undefined for no cursor.
 *
 * @throws INVALID_INPUT when the position does not look as `pattern` says.
 */
export function fromCursor(cursor: string | undefined, pattern: RegExp): string | undefined {
  if (cursor === undefined) return undefined;
  const position = Buffer.from(cursor, "base64url").toString("utf8");
  if (pattern.test(position)) return position;
  const message = "not a cursor of this list";
  throw new DomainError("INVALID_INPUT", message, { issues: [{ path: "cursor", message }] });
}

/** Our ids, which a list by id has as positions. */
export const UUID_PATTERN = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
/** What a list by sequence number has as positions. */
export const SEQ_POSITION = /^[1-9][0-9]{0,15}$/;

export interface Page<Item> {
  items: Item[];
  /** null on the last page. */
  nextCursor: string | null;
}

/** A page out of `limit + 1` rows: the one too many says that there is more. */
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
