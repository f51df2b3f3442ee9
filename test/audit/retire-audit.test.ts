import { sql } from "drizzle-orm";
import { afterAll, beforeAll, expect, test } from "vitest";
import { prepareService } from "../../db/prepare-service.ts";
import { anchorChains } from "../../server/audit/anchor-chains.ts";
import { getAuditHead } from "../../server/audit/audit-head.ts";
import { retireAudit } from "../../server/audit/retire-audit.ts";
import { verifyAudit } from "../../server/audit/verify-audit.ts";
import { shiftDatabaseClock } from "../support/shift-clock.ts";
import { openChains, type Chains } from "./open-chains.ts";

let chains: Chains;
const DAY_MS = 86_400_000;

const keepFor = async (days: number | undefined) =>
  prepareService({
    url: chains.testDatabase.adminUrl,
    serviceRole: undefined,
    auditRetentionMs: days === undefined ? undefined : days * DAY_MS,
  });

beforeAll(async () => {
  chains = await openChains();
});
afterAll(async () => chains?.[Symbol.asyncDispose]());

const verify = async (scope: string, more: Partial<Parameters<typeof verifyAudit>[1]> = {}) =>
  verifyAudit(chains.ctx, { scope, ...more });

/** Three rows of now, and two rows of forty days later. */
async function makeOldChain(): Promise<string> {
  await shiftDatabaseClock(chains.testDatabase.url, "0");
  const scope = await chains.append(3);
  await shiftDatabaseClock(chains.testDatabase.url, "40 days");
  await chains.append(2, scope);
  await anchorChains(chains.ctx);
  return scope;
}

test("without a retention nothing is removed, and the service's role cannot choose one", async () => {
  const scope = await makeOldChain();
  await keepFor(undefined);
  expect(await retireAudit(chains.ctx)).toEqual({ removed: 0 });
  await expect(chains.ctx.raw`insert into audit_retention values (true, 0)`).rejects.toThrow(
    "permission denied",
  );
  expect(await chains.ctx.raw`select retire_audit(${scope}, 1000) as removed`).toEqual([{ removed: "0" }]);
  expect(await verify(scope)).toMatchObject({ ok: true, checked: 5, startSeq: 0 });
});

test("old rows are removed, and the rest of the chain verifies from the start that the service vouches for", async () => {
  const scope = await makeOldChain();
  const early = await getAuditHead(chains.ctx, { scope });
  await keepFor(30);
  await retireAudit(chains.ctx);
  const verdict = { ok: true, checked: 2, startSeq: 3, headSeq: 5, anchoredSeq: 5 };
  expect(await verify(scope)).toMatchObject(verdict);
  expect(await verify(scope, { fromSeq: 1 })).toMatchObject(verdict);
  expect(await verify(scope, { knownHead: early })).toMatchObject({ ok: true, isKnownHeadChecked: true });
  const [row] = await chains.ctx
    .raw`select hash from audit_anchors where scope = ${scope} and kind = 'start'`;
  const kept = { seq: 3, hash: String(row?.["hash"]) };
  expect(await verify(scope, { knownHead: kept })).toMatchObject({ ok: true });
  const another = { seq: 3, hash: "0".repeat(64) };
  expect(await verify(scope, { knownHead: another })).toMatchObject({ problem: "known_head_differs" });
  const older = { seq: 2, hash: "0".repeat(64) };
  expect(await verify(scope, { knownHead: older })).toMatchObject({ ok: true, isKnownHeadChecked: false });
});

test("a chain of old rows only keeps its last row, and grows on", async () => {
  await shiftDatabaseClock(chains.testDatabase.url, "0");
  const scope = await chains.append(3);
  await shiftDatabaseClock(chains.testDatabase.url, "40 days");
  await anchorChains(chains.ctx);
  await keepFor(30);
  await retireAudit(chains.ctx);
  expect(await verify(scope)).toMatchObject({ ok: true, checked: 1, startSeq: 2 });
  await chains.append(1, scope);
  expect(await verify(scope)).toMatchObject({ ok: true, checked: 2, headSeq: 4 });
});

test("rows that do not verify are not removed, and neither are rows that no anchor covers", async () => {
  await keepFor(30);
  const changed = await makeOldChain();
  await chains.tamper(sql`update audit_log set user_id = 'eve' where scope = ${changed} and seq = 2`);
  await shiftDatabaseClock(chains.testDatabase.url, "0");
  const unanchored = await chains.append(3);
  await shiftDatabaseClock(chains.testDatabase.url, "40 days");
  await retireAudit(chains.ctx);
  expect(await verify(changed)).toMatchObject({ ok: false, firstBadSeq: 2, startSeq: 0 });
  expect(await verify(unanchored)).toMatchObject({ ok: true, checked: 3, startSeq: 0 });
});

test("a removal of more rows than the anchored ones is found, and so is a start without the master key", async () => {
  const scope = await makeOldChain();
  await keepFor(30);
  await retireAudit(chains.ctx);
  await chains.tamper(
    sql`delete from audit_log where scope = ${scope} and seq = 4`,
    sql`update audit_anchors a set seq = 4, hash = (select prev_hash from audit_log l where l.scope = a.scope and l.seq = 5)
          where scope = ${scope} and kind = 'start'`,
  );
  expect(await verify(scope)).toMatchObject({ ok: false, problem: "anchor_forged" });
});
