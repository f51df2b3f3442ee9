import type { Client } from "../client/index.ts";

type AuditRow = Awaited<ReturnType<Client["api"]["audit"]["list"]["query"]>>["items"][number];

/** The audit rows as the lines of a table, oldest first. */
export function toAuditTable(rows: readonly AuditRow[]): string[] {
  const cells = rows
    .toSorted((a, b) => a.seq - b.seq)
    .map((row) => [
      String(row.seq),
      row.at.slice(11, 23),
      row.action,
      `${row.actor.kind} ${row.actor.name}`,
      row.userId ?? "",
      row.hash.slice(0, 8),
    ]);
  const table = [["seq", "at", "action", "by", "user", "hash"], ...cells];
  const widths = [0, 1, 2, 3, 4, 5].map((column) =>
    Math.max(...table.map((line) => line[column]?.length ?? 0)),
  );
  return table.map((line) =>
    line
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd(),
  );
}
