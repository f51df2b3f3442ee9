import type { AnchorRow, ChainEnd } from "../../../db/audit-anchors.ts";
import type { AuditLogRow } from "../../../db/audit-log.ts";
import { toAuditLogRow, toColumnPlaces, toCopyFields, toCopyLines, toMicroseconds } from "../copied-rows.ts";

/** A row of one of the tables of the audit log. */
export type DumpedRow =
  | { table: "audit_log"; row: AuditLogRow }
  | { table: "audit_heads"; row: ChainEnd & { scope: string } }
  | { table: "audit_anchors"; row: AnchorRow };

type ReadRow = (line: string) => DumpedRow;

const COPY = /^COPY (?:[^ ]+\.)?"?(\w+)"? \(([^)]*)\) FROM stdin;$/;
const END_OF_COPY = "\\.";

/** The rows of the audit log in the SQL text of a dump. Everything else is skipped. Yields many rows at a time. */
export async function* readDump(chunks: AsyncIterable<Buffer>): AsyncGenerator<DumpedRow[]> {
  let table: { read: ReadRow | undefined } | undefined;
  for await (const lines of toCopyLines(chunks)) {
    const rows: DumpedRow[] = [];
    for (const line of lines) {
      if (table === undefined) table = findTable(line);
      else if (line === END_OF_COPY) table = undefined;
      else if (table.read !== undefined) rows.push(table.read(line));
    }
    yield rows;
  }
  if (table !== undefined) throw new Error("the dump ends within a table: it was cut off");
}

/** undefined: the rows of no table follow this line. */
function findTable(line: string): { read: ReadRow | undefined } | undefined {
  const [, table, columns] = COPY.exec(line) ?? [];
  if (table === undefined || columns === undefined) return undefined;
  return {
    read: findReader(
      table,
      columns.split(",").map((name) => name.trim().replaceAll('"', "")),
    ),
  };
}

/** undefined: the table has nothing to do with the audit log. */
function findReader(table: string, columns: readonly string[]): ReadRow | undefined {
  if (table === "audit_heads") return (line) => ({ table, row: toHead(toRecord(line, columns)) });
  if (table === "audit_anchors") return (line) => ({ table, row: toAnchor(toRecord(line, columns)) });
  if (!/^audit_log(?:_\d+)?$/.test(table)) return undefined;
  const places = toColumnPlaces(columns);
  if (places === undefined)
    throw new Error(`the table ${table} of the dump has not the columns of the audit log`);
  return (line) => ({ table: "audit_log", row: toAuditLogRow(line, places) });
}

function toRecord(line: string, columns: readonly string[]): Record<string, string> {
  const fields = toCopyFields(line);
  return Object.fromEntries(columns.map((column, place) => [column, fields[place] ?? ""]));
}

function toHead({ scope = "", seq, hash = "" }: Record<string, string>): ChainEnd & { scope: string } {
  return { scope, seq: Number(seq), hash };
}

function toAnchor({
  scope = "",
  kind,
  seq,
  hash = "",
  at = "",
  mac = "",
}: Record<string, string>): AnchorRow {
  return {
    scope,
    kind: kind === "start" ? "start" : "head",
    seq: Number(seq),
    hash,
    at: toMicroseconds(at),
    mac,
  };
}
