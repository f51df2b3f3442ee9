import type { Db } from "../../db/client.ts";
import { lockSealedRows, writeSealedRow, type RowFilter, type SealedRow } from "../../db/sealed-rows.ts";
import { appendAudit } from "../audit/append-audit.ts";
import type { Actor } from "../actor.ts";
import type { Keyring } from "../keys/keyring.ts";
import { SEALED_TABLES } from "./sealed-tables.ts";

export type AdoptableTable = keyof typeof SEALED_TABLES;

export interface AdoptInput {
  /** false: only count and describe. */
  write: boolean;
  /** Only this row, whether or not it has a MAC. Without it, all rows without a MAC. */
  row?: { table: AdoptableTable; id: string } | undefined;
}

export interface AdoptedRows {
  /** How many rows have the same description, by table and description. */
  groups: { table: AdoptableTable; description: string; count: number }[];
  total: number;
  /** Rows without a MAC that are never adopted, by table. */
  refused: Partial<Record<AdoptableTable, number>>;
}

const ROWS_PER_TRANSACTION = 500;
/** The program does not know who runs it, only that this person has the master keys. */
const ADOPTER: Actor = { kind: "system", id: "system", name: "keys:adopt" };

/**
 * Makes the MACs of rows that have none, for rows of a version without MACs. Only a person who has the master keys and
 * vouches for the rows may call it: nothing tells such a row from one whose MAC was erased. Throws SealError if an
 * engine key does not open. A call that was cut off is made again.
 */
export async function adoptRows(db: Db, keyring: Keyring, input: AdoptInput): Promise<AdoptedRows> {
  const groups = new Map<string, AdoptedRows["groups"][number]>();
  const refused: AdoptedRows["refused"] = {};
  let total = 0;
  const tables = Object.keys(SEALED_TABLES) as AdoptableTable[];
  for (const table of tables.filter((name) => input.row === undefined || input.row.table === name)) {
    const own = SEALED_TABLES[table];
    await walk(db, { table, filter: toFilter(input) }, async (tx, rows) => {
      if (own.adopt === undefined) {
        if (rows.length > 0) refused[table] = (refused[table] ?? 0) + rows.length;
        return;
      }
      for (const row of rows) {
        const description = own.describe?.(row) ?? "";
        const name = `${table} ${description}`;
        const group = groups.get(name) ?? { table, description, count: 0 };
        groups.set(name, { ...group, count: group.count + 1 });
        // Also without writing, so that a master key that is missing shows before anything is changed.
        const patch = own.adopt(keyring, row);
        if (input.write) await writeSealedRow(tx, own.columns, { row, patch });
      }
      total += rows.length;
      if (input.write && rows.length > 0) {
        await recordAdoption(tx, { table, rows: rows.length, row: input.row ?? null });
      }
    });
  }
  return { groups: [...groups.values()], total, refused };
}

/** In the transaction that adopts the rows, so that a run that is cut off leaves no adopted row without an audit row. */
async function recordAdoption(
  tx: Db,
  metadata: { table: AdoptableTable; rows: number; row: AdoptInput["row"] | null },
): Promise<void> {
  await appendAudit(tx, { scope: "platform", actor: ADOPTER, action: "rows.adopted", metadata });
}

function toFilter({ row }: AdoptInput): RowFilter {
  return row === undefined ? "without_mac" : { id: row.id };
}

async function walk(
  db: Db,
  { table, filter }: { table: AdoptableTable; filter: RowFilter },
  visit: (tx: Db, rows: readonly SealedRow[]) => Promise<void>,
): Promise<void> {
  let after: SealedRow | undefined;
  for (;;) {
    const page = { filter, after, limit: ROWS_PER_TRANSACTION };
    const rows = await db.transaction(async (tx) => {
      const locked = await lockSealedRows(tx, SEALED_TABLES[table].columns, page);
      await visit(tx, locked);
      return locked;
    });
    after = rows.at(-1);
    if (rows.length < ROWS_PER_TRANSACTION) return;
  }
}
