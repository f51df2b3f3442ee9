import type { Db } from "../../db/client.ts";
import { insertMasterKeyRow, listMasterKeyRows, type MasterKeyRow } from "../../db/master-keys.ts";
import { hasRows } from "../../db/sealed-rows.ts";
import { ConfigError } from "../config/config.ts";
import type { Keyring } from "../keys/keyring.ts";
import { isRowMac, toRowMac, type MacInput } from "../keys/row-mac.ts";
import type { Log } from "../log.ts";
import { adoptRows } from "./adopt-rows.ts";
import { SEALED_TABLES } from "./sealed-tables.ts";

export interface CheckMasterKeysInput {
  db: Db;
  keyring: Keyring;
  log: Log;
  instanceId: string;
  /**
   * Rows of a version without MACs are adopted without being asked. Only for the embedded database: who can write its
   * files can read the master keys beside them.
   */
  adoptsRows: boolean;
}

/**
 * Checks that the keyring has every master key that this database was written with. Notes the first key as used.
 *
 * @throws ConfigError that names the key, or that names `npm run keys:adopt` for a database of a version without MACs.
 */
export async function checkMasterKeys(input: CheckMasterKeysInput): Promise<void> {
  const { db, keyring, instanceId } = input;
  const rows = await listMasterKeyRows(db);
  const problems = rows.flatMap((row) => findProblem(keyring, instanceId, row) ?? []);
  if (problems.length > 0) throw new ConfigError(problems);
  if (rows.length === 0 && (await hasAnyRow(db))) await adoptOrRefuse(input);
  await noteMasterKey(input);
}

/** Notes that values are made with the first key from now on. */
export async function noteMasterKey({
  db,
  keyring,
  instanceId,
}: Pick<CheckMasterKeysInput, "db" | "keyring" | "instanceId">): Promise<void> {
  const { firstKeyId: keyId } = keyring;
  await insertMasterKeyRow(db, { keyId, checkValue: toRowMac(keyring, toCheckInput(instanceId, keyId)) });
}

function findProblem(
  keyring: Keyring,
  instanceId: string,
  { keyId, checkValue }: MasterKeyRow,
): string | undefined {
  const where = `ORCH_MASTER_KEYS: the values of this database were made with the master key "${keyId}"`;
  if (!keyring.keyIds.includes(keyId)) {
    return `${where}, which is missing: add it behind the first key, and remove it only when engineKeys.reseal answers \`remaining: 0\``;
  }
  const isOwn = checkValue.startsWith(`${keyId}:`);
  if (isOwn && isRowMac(keyring, toCheckInput(instanceId, keyId), checkValue)) return undefined;
  return `${where}, and the key with this id is another one: give the right key, and give a new key an id of its own`;
}

function toCheckInput(instanceId: string, keyId: string): MacInput {
  return { purpose: "master_key", fields: [instanceId, keyId] };
}

async function hasAnyRow(db: Db): Promise<boolean> {
  for (const { columns } of Object.values(SEALED_TABLES)) {
    if (columns.macs.length > 0 && (await hasRows(db, columns))) return true;
  }
  return false;
}

/** Nothing tells rows of an earlier version from rows whose MACs were erased. So a person has to decide. */
async function adoptOrRefuse({ db, keyring, log, adoptsRows }: CheckMasterKeysInput): Promise<void> {
  if (!adoptsRows) {
    throw new ConfigError([
      "the rows of this database have no MACs, because an earlier version wrote them: run `npm run keys:adopt` with the same ORCH_DATABASE_URL and ORCH_MASTER_KEYS, and start again",
    ]);
  }
  const { total } = await adoptRows(db, keyring, { write: true });
  log.info({ rows: total }, "adopted the rows of an earlier version");
}
