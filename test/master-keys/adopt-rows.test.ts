import { randomUUID } from "node:crypto";
import { sql } from "drizzle-orm";
import { afterEach, beforeEach, expect, test } from "vitest";
import { openDatabase, type Database } from "../../db/client.ts";
import { listMasterKeyRows } from "../../db/master-keys.ts";
import { openLog } from "../../server/log.ts";
import { generateMasterKeys, openKeyring } from "../../server/keys/keyring.ts";
import { adoptRows } from "../../server/master-keys/adopt-rows.ts";
import { checkMasterKeys } from "../../server/master-keys/check-master-keys.ts";
import { runAdoption } from "../../server/master-keys/run-adoption.ts";
import { openTestDatabase, type TestDatabase } from "../support/test-database.ts";

const KEYS = generateMasterKeys();
const keyring = openKeyring(KEYS);

let database: TestDatabase;
let client: Database;
let productIds: [string, string];

/** A database as a version without MACs left it: two products, each with a key. */
beforeEach(async () => {
  database = await openTestDatabase();
  client = openDatabase({ url: database.url, poolSize: 1, applicationName: "adopt-test" });
  productIds = [randomUUID(), randomUUID()];
  for (const id of productIds) {
    await client.db.execute(sql`insert into products (id, slug, name, policy, created_at)
      values (${id}, ${id}, 'p', '{}', orch_now())`);
    await client.db
      .execute(sql`insert into platform_keys (id, product_id, name, prefix, hash, scopes, created_at)
      values (${randomUUID()}, ${id}, 'k', 'ehp_', ${id}, '{read}', orch_now())`);
  }
});
afterEach(async () => {
  await client.close();
  await database.close();
});

async function listAdoptions() {
  return client.db.execute(
    sql`select metadata::json->>'table' as table, (metadata::json->>'rows')::int as rows
      from audit_log where action = 'rows.adopted' order by seq`,
  );
}

async function adopt(row?: { table: string; id: string }) {
  const printed: string[] = [];
  const print = (line: string) => void printed.push(line);
  const input = { databaseUrl: database.url, masterKeys: KEYS, write: true, row };
  return { code: await runAdoption({ ...input, print, printProblem: print }), printed: printed.join("\n") };
}

const check = async () => {
  const instance = await client.db.execute<{ id: string }>(sql`select id from instance`);
  const given = { instanceId: instance[0]?.id ?? "", adoptsRows: false };
  return checkMasterKeys({
    db: client.db,
    keyring,
    log: openLog({ level: "silent", pretty: false }),
    ...given,
  });
};

test("an adoption that is cut off has audited every row that it has adopted", async () => {
  const cut = {
    ...keyring,
    macKey: (keyId: string, purpose: Parameters<typeof keyring.macKey>[1]) => {
      if (purpose === "platform_key") throw new Error("cut off");
      return keyring.macKey(keyId, purpose);
    },
  };
  await expect(adoptRows(client.db, cut, { write: true })).rejects.toThrow("cut off");
  expect(await listAdoptions()).toEqual([{ table: "products", rows: 2 }]);
  expect((await adoptRows(client.db, keyring, { write: true })).total).toBe(2);
  expect(await listAdoptions()).toEqual([
    { table: "products", rows: 2 },
    { table: "platform_keys", rows: 2 },
  ]);
});

test("the adoption of one row does not make a start accept a database whose other rows have no MAC", async () => {
  const [id] = productIds;
  const one = await adopt({ table: "products", id });
  expect(one).toMatchObject({ code: 0, printed: expect.stringContaining("3 rows without a MAC are left") });
  expect(await listMasterKeyRows(client.db)).toEqual([]);
  await expect(check()).rejects.toThrow("npm run keys:adopt");
  expect((await adopt()).code).toBe(0);
  await expect(check()).resolves.toBeUndefined();
});

test("when the rows were adopted one by one, the last one makes a start accept the database", async () => {
  const keys = await client.db.execute<{ id: string }>(sql`select id from platform_keys`);
  for (const id of productIds) await adopt({ table: "products", id });
  for (const { id } of keys) {
    await expect(check()).rejects.toThrow("npm run keys:adopt");
    await adopt({ table: "platform_keys", id });
  }
  await expect(check()).resolves.toBeUndefined();
});
