import { randomUUIDv7 } from "node:crypto";
import { openDatabase, type Database } from "../../db/client.ts";
import { ensureInstance } from "../../db/instance.ts";
import { listMasterKeyRows } from "../../db/master-keys.ts";
import { findSchemaState } from "../../db/migrate.ts";
import { countSealedRows } from "../../db/sealed-rows.ts";
import { toErrorMessage } from "../errors.ts";
import { openKeyring, type Keyring } from "../keys/keyring.ts";
import { adoptRows, type AdoptableTable, type AdoptedRows } from "./adopt-rows.ts";
import { noteMasterKey } from "./check-master-keys.ts";
import { SEALED_TABLES } from "./sealed-tables.ts";

export interface AdoptionInput {
  databaseUrl: string;
  masterKeys: string;
  write: boolean;
  row: { table: string; id: string } | undefined;
  print: (line: string) => void;
  printProblem: (line: string) => void;
}

/** The program `npm run keys:adopt`. Returns its exit code. */
export async function runAdoption(input: AdoptionInput): Promise<0 | 1 | 2> {
  const keyring = readKeyring(input);
  if (keyring === undefined) return 2;
  if (input.databaseUrl === "") {
    input.printProblem("no database is configured: set ORCH_DATABASE_URL as the service has it");
    return 2;
  }
  await using database = openDatabase({
    url: input.databaseUrl,
    poolSize: 2,
    applicationName: "enginehouse-adopt",
  });
  try {
    if ((await findSchemaState(database.raw)) !== "current") {
      input.printProblem("the schema of the database is not current: run `npm run db:migrate` first");
      return 1;
    }
    await adopt(input, keyring, database);
    return 0;
  } catch (error) {
    input.printProblem(toErrorMessage(error));
    return 1;
  }
}

function readKeyring({ masterKeys, printProblem }: AdoptionInput): Keyring | undefined {
  if (masterKeys === "") {
    printProblem("no master key is configured: set ORCH_MASTER_KEYS as the service has it");
    return undefined;
  }
  try {
    return openKeyring(masterKeys);
  } catch (error) {
    printProblem(`ORCH_MASTER_KEYS is not valid: ${toErrorMessage(error)}`);
    return undefined;
  }
}

async function adopt(input: AdoptionInput, keyring: Keyring, { db }: Database): Promise<void> {
  const { write, print } = input;
  const row = input.row && { table: input.row.table as AdoptableTable, id: input.row.id };
  const adopted = await adoptRows(db, keyring, { write, row });
  printGroups(input, adopted);
  if (write) {
    const { id: instanceId } = await ensureInstance(db, randomUUIDv7());
    const left = await countMacs(db, "without_mac");
    // The note says that this database was adopted as a whole. The next start refuses a database without it.
    if (left === 0 || (await listMasterKeyRows(db)).length > 0) {
      await noteMasterKey({ db, keyring, instanceId });
    } else {
      print(`${left} rows without a MAC are left, and the service does not start before they are adopted`);
    }
    print(`${adopted.total} rows adopted under the master key "${keyring.firstKeyId}"`);
    return;
  }
  const withMac = await countMacs(db, "with_mac");
  if (withMac > 0 && row === undefined && adopted.total > 0) {
    print(
      `${withMac} other rows have a MAC, so this is not the first adoption: find out who changed the rows above`,
    );
  }
  print(`${adopted.total} rows to adopt; nothing was changed: check them, and run again with --write`);
}

function printGroups({ print, printProblem }: AdoptionInput, { groups, refused }: AdoptedRows): void {
  for (const { table, description, count } of groups) print(`${count} x ${table} ${description}`);
  for (const [table, count] of Object.entries(refused)) {
    printProblem(`${count} x ${table} without a MAC are never adopted: delete them, and issue new keys`);
  }
}

/** Counts over the tables whose rows carry a MAC. */
async function countMacs(db: Database["db"], filter: "with_mac" | "without_mac"): Promise<number> {
  let count = 0;
  for (const table of Object.values(SEALED_TABLES)) {
    // Rows that are never adopted must not keep the others from being used.
    const counts = table.columns.macs.length > 0 && (filter === "with_mac" || "adopt" in table);
    if (counts) count += await countSealedRows(db, table.columns, filter);
  }
  return count;
}
