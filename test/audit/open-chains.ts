import { randomUUID } from "node:crypto";
import { sql, type SQL } from "drizzle-orm";
import { expect } from "vitest";
import { openDatabase, type Database, type RawSql } from "../../db/client.ts";
import { anchorChains, MadeAnchors, type AnchorContext } from "../../server/audit/anchor-chains.ts";
import { appendAudit } from "../../server/audit/append-audit.ts";
import { toAuditHash } from "../../server/audit/audit-row.ts";
import { OWN_PLACES, toAuditLogRow, toCopyLines } from "../../server/audit/copied-rows.ts";
import { copyAuditRows } from "../../db/audit-log.ts";
import { generateMasterKeys, openKeyring, type Keyring } from "../../server/keys/keyring.ts";
import { openLog } from "../../server/log.ts";
import { systemClock } from "../../server/time/clock.ts";
import { openTestDatabase, type TestDatabase } from "../support/test-database.ts";
import { switchTriggersOff } from "./switch-triggers-off.ts";

/** A service that anchors audit chains, and somebody who has the password of the schema's owner. */
export interface Chains extends AsyncDisposable {
  readonly testDatabase: TestDatabase;
  /** With the rights of the schema's owner, as pg_dump needs them. */
  readonly ownerRaw: RawSql;
  readonly ctx: AnchorContext;
  readonly keyring: Keyring;
  /** What another process of the service has: no memory of anchors. */
  openNext(keyring?: Keyring): AnchorContext;
  /** Appends rows, to a new chain unless one is given. Returns the chain. */
  append(rows: number, scope?: string): Promise<string>;
  anchor(): Promise<void>;
  /** Changes rows past the service. Each statement must change something. */
  tamper(...statements: SQL[]): Promise<void>;
  /** Computes every hash and the head anew from this row on, as somebody would who wants no trace. */
  rewriteFrom(scope: string, seq: number): Promise<void>;
}

export async function openChains(): Promise<Chains> {
  await using stack = new AsyncDisposableStack();
  const testDatabase = stack.use(await openTestDatabase());
  await switchTriggersOff(testDatabase);
  const open = (url: string) => stack.use(openDatabase({ url, poolSize: 3, applicationName: "chains-test" }));
  const database = open(testDatabase.url);
  const owner: Database = open(testDatabase.adminUrl);
  const keyring = openKeyring(generateMasterKeys());
  const log = openLog({ level: "silent", pretty: false });
  const openNext = (own = keyring): AnchorContext => ({
    db: database.db,
    raw: database.raw,
    clock: systemClock,
    log,
    keyring: own,
    madeAnchors: new MadeAnchors(),
  });
  const ctx = openNext();
  const opened = stack.move();
  const tamper = async (...statements: SQL[]) => {
    for (const statement of statements) {
      expect((await owner.db.execute(statement)).count).toBeGreaterThan(0);
    }
  };
  return {
    testDatabase,
    ownerRaw: owner.raw,
    ctx,
    keyring,
    openNext,
    append: async (rows, scope = randomUUID()) => {
      await database.db.transaction(async (tx) => {
        for (let index = 1; index <= rows; index += 1) {
          await appendAudit(tx, {
            scope,
            actor: { kind: "operator", id: randomUUID(), name: 'tab\t"quote" \\ back\nslash' },
            action: "engine.started",
            userId: `user ${index}`,
            metadata: { index, text: "zoë \\N 🦊" },
          });
        }
      });
      return scope;
    },
    anchor: async () => {
      await anchorChains(ctx);
    },
    tamper,
    rewriteFrom: async (scope, fromSeq) => {
      for (let seq = fromSeq; ; seq += 1) {
        const lines: string[] = [];
        const copied = await copyAuditRows(owner.raw, { scope, afterSeq: seq - 2, toSeq: seq });
        for await (const some of toCopyLines(copied)) lines.push(...some.filter((line) => line !== ""));
        const rows = lines.map((line) => toAuditLogRow(line, OWN_PLACES));
        const row = rows.find((one) => one.seq === seq);
        if (row === undefined) return;
        const prevHash = rows.find((one) => one.seq === seq - 1)?.hash ?? row.prevHash;
        const hash = toAuditHash({ ...row, prevHash });
        await tamper(
          sql`update audit_log set prev_hash = ${prevHash}, hash = ${hash} where scope = ${scope} and seq = ${seq}`,
          sql`update audit_heads set seq = ${seq}, hash = ${hash} where scope = ${scope}`,
        );
      }
    },
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
}
