import { DomainError } from "./errors.ts";

/**
 * Parses the position in a cursor of `toPage`; undefined without a cursor.
 *
 * @throws INVALID_INPUT if `parse` returns undefined: the position is not one of this list.
 */
export function fromCursor<Position>(
  cursor: string | undefined,
  parse: (position: string) => Position | undefined,
): Position | undefined {
  if (cursor === undefined) return undefined;
  const position = parse(Buffer.from(cursor, "base64url").toString("utf8"));
  if (position !== undefined) return position;
  const message = "is not a cursor of this list: pass `nextCursor` of its last page";
  throw new DomainError("INVALID_INPUT", `cursor ${message}`, { issues: [{ path: "cursor", message }] });
}

/** Parses an id of ours: the position in a list that is ordered by id. */
export function parseId(text: string): string | undefined {
  return /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(text) ? text : undefined;
}

export interface Page<Item> {
  items: Item[];
  /** null on the last page. */
  nextCursor: string | null;
}

/**
 * Makes a page of `limit` rows. Query `limit + 1` rows: the extra one tells that another page follows. Cursors are
 * opaque to callers, so that the order of a list can change.
 */
export function toPage<Row, Item>(
  rows: readonly Row[],
  limit: number,
  to: { item: (row: Row) => Item; position: (row: Row) => string },
): Page<Item> {
  const shown = rows.slice(0, limit);
  const last = rows.length > limit ? shown.at(-1) : undefined;
  const nextCursor = last === undefined ? null : Buffer.from(to.position(last)).toString("base64url");
  return { items: shown.map(to.item), nextCursor };
}
