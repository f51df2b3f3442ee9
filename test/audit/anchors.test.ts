import { randomUUID } from "node:crypto";
import { sql } from "drizzle-orm";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { anchorChains } from "../../server/audit/anchor-chains.ts";
import { getAuditHead } from "../../server/audit/audit-head.ts";
import { verifyAudit } from "../../server/audit/verify-audit.ts";
import { generateMasterKeys, openKeyring } from "../../server/keys/keyring.ts";
import { lockSealedRows, writeSealedRow } from "../../db/sealed-rows.ts";
import { SEALED_TABLES } from "../../server/master-keys/sealed-tables.ts";
import { systemClock } from "../../server/time/clock.ts";
import { openChains, type Chains } from "./open-chains.ts";

let chains: Chains;

beforeAll(async () => {
  chains = await openChains();
});
afterAll(async () => chains?.[Symbol.asyncDispose]());

const verify = async (scope: string, more: Partial<Parameters<typeof verifyAudit>[1]> = {}) =>
  verifyAudit(chains.ctx, { scope, ...more });
const getHead = async (scope: string) => getAuditHead(chains.ctx, { scope });

/** Each leaves a chain that is consistent in itself, with a head that fits. */
const CONSISTENT_FORGERIES = {
  "a changed row": async (scope: string) => {
    await chains.tamper(sql`update audit_log set user_id = 'eve' where scope = ${scope} and seq = 3`);
    await chains.rewriteFrom(scope, 3);
    return 3;
  },
  "a removed row": async (scope: string) => {
    await chains.tamper(
      sql`delete from audit_log where scope = ${scope} and seq = 3`,
      sql`update audit_log set seq = seq + 1000 where scope = ${scope} and seq > 3`,
      sql`update audit_log set seq = seq - 1001 where scope = ${scope} and seq > 1000`,
    );
    await chains.rewriteFrom(scope, 3);
    return 3;
  },
  "an inserted row": async (scope: string) => {
    await chains.tamper(
      sql`update audit_log set seq = seq + 1000 where scope = ${scope} and seq >= 3`,
      sql`update audit_log set seq = seq - 999 where scope = ${scope} and seq > 1000`,
      sql`insert into audit_log select scope, 3, at, actor, action, 'eve', engine_id, request_id, metadata,
            duration_ms, prev_hash, hash from audit_log where scope = ${scope} and seq = 2`,
    );
    await chains.rewriteFrom(scope, 3);
    return 3;
  },
  "two reordered rows": async (scope: string) => {
    await chains.tamper(
      sql`update audit_log set seq = 99 where scope = ${scope} and seq = 2`,
      sql`update audit_log set seq = 2 where scope = ${scope} and seq = 3`,
      sql`update audit_log set seq = 3 where scope = ${scope} and seq = 99`,
      sql`update audit_log set prev_hash = (select hash from audit_log l where l.scope = ${scope} and l.seq = 1)
            where scope = ${scope} and seq = 2`,
    );
    await chains.rewriteFrom(scope, 2);
    return 2;
  },
  "a cut tail": async (scope: string) => {
    await chains.tamper(
      sql`delete from audit_log where scope = ${scope} and seq > 3`,
      sql`update audit_heads h set seq = 3, hash = l.hash from audit_log l
            where h.scope = ${scope} and l.scope = h.scope and l.seq = 3`,
    );
    return 4;
  },
};
const FORGERIES = Object.entries(CONSISTENT_FORGERIES);

describe("with the head changed too, the anchor shows", () => {
  test.each(FORGERIES)("%s", async (_what, forge) => {
    const scope = await chains.append(5);
    await chains.anchor();
    expect(await verify(scope)).toMatchObject({ ok: true, checked: 5, anchoredSeq: 5 });
    const firstSeq = await forge(scope);
    const verdict = await verify(scope);
    expect(verdict).toMatchObject({ ok: false, problem: "anchor_differs" });
    expect(verdict.firstBadSeq).toBeGreaterThanOrEqual(firstSeq);
  });
});

describe("with the head and the anchor removed or changed too, a head that was kept elsewhere shows", () => {
  test.each(FORGERIES)("%s", async (_what, forge) => {
    const scope = await chains.append(5);
    const knownHead = await getHead(scope);
    expect(knownHead).toMatchObject({ scope, seq: 5, mac: expect.any(String) });
    expect(await verify(scope, { knownHead })).toMatchObject({ ok: true, isKnownHeadChecked: true });
    await forge(scope);
    expect(await verify(scope)).toMatchObject({ ok: true, anchoredSeq: 0 });
    expect(await verify(scope, { knownHead })).toMatchObject({ ok: false, problem: "known_head_differs" });
    await chains.append(4, scope);
    expect(await verify(scope, { knownHead })).toMatchObject({ ok: false, problem: "known_head_differs" });
  });

  test("a truncated log", async () => {
    const scope = await chains.append(5);
    const knownHead = await getHead(scope);
    await chains.tamper(
      sql`delete from audit_log where scope = ${scope}`,
      sql`delete from audit_heads where scope = ${scope}`,
    );
    expect(await verify(scope)).toMatchObject({ ok: true, checked: 0 });
    const verdict = await verify(scope, { knownHead });
    expect(verdict).toMatchObject({ ok: false, firstBadSeq: 1, problem: "known_head_differs" });
  });
});

test("an empty chain is vouched for by nobody, and does not verify if its product has a key", async () => {
  const scope = randomUUID();
  expect(await verify(scope)).toMatchObject({ ok: true, checked: 0 });
  expect(await getHead(scope)).toMatchObject({ seq: 0, mac: null });
  const { raw } = chains.ctx;
  await raw`insert into products (id, slug, name, created_at) values (${scope}, ${scope}, 'p', now())`;
  await raw`insert into platform_keys (id, product_id, name, prefix, hash, scopes, created_at)
    values (${randomUUID()}, ${scope}, 'k', 'ehp_', ${scope}, '{}', now())`;
  for (const emptied of [scope, "platform"]) {
    expect(await verify(emptied)).toMatchObject({ ok: false, firstBadSeq: 1, problem: "chain_missing" });
  }
});

test("a kept head still fits after the chain has grown, and says nothing about another chain", async () => {
  const scope = await chains.append(3);
  const knownHead = await getHead(scope);
  await chains.append(3, scope);
  expect(await verify(scope, { knownHead })).toMatchObject({ ok: true, checked: 6 });
  const part = await verify(scope, { knownHead, fromSeq: 5 });
  expect(part).toMatchObject({ ok: true, checked: 2, isKnownHeadChecked: true });
  const other = await chains.append(3);
  await expect(verify(other, { knownHead })).rejects.toMatchObject({ reason: "INVALID_INPUT" });
});

test("a kept head that was changed where it was kept is found by its MAC", async () => {
  const scope = await chains.append(3);
  const head = await getHead(scope);
  await chains.append(1, scope);
  const later = await getHead(scope);
  const knownHead = { ...head, seq: later.seq, hash: later.hash };
  expect(await verify(scope, { knownHead })).toMatchObject({ ok: false, problem: "known_head_forged" });
});

test("a kept head still fits after its master key was dropped, and shows a chain that was rewritten since", async () => {
  const scope = await chains.append(3);
  const knownHead = await getHead(scope);
  const alone = chains.openNext(openKeyring(generateMasterKeys()));
  expect(await verifyAudit(alone, { scope, knownHead })).toMatchObject({
    ok: true,
    isKnownHeadChecked: true,
  });
  await chains.tamper(sql`update audit_log set user_id = 'eve' where scope = ${scope} and seq = 2`);
  await chains.rewriteFrom(scope, 2);
  expect(await verifyAudit(alone, { scope, knownHead })).toMatchObject({ problem: "known_head_differs" });
});

test("an anchor without the master key is found, in every field, and no new anchor replaces it", async () => {
  const changes = {
    seq: sql`seq = seq - 1`,
    hash: sql`hash = (select hash from audit_log l where l.scope = audit_anchors.scope and l.seq = 2)`,
    at: sql`at = at + interval '1 second'`,
    mac: sql`mac = left(mac, -4) || 'AAAA'`,
  };
  for (const change of Object.values(changes)) {
    const scope = await chains.append(3);
    await chains.anchor();
    await chains.tamper(sql`update audit_anchors set ${change} where scope = ${scope} and kind = 'head'`);
    expect(await verify(scope)).toMatchObject({ ok: false, problem: "anchor_forged", anchoredSeq: 0 });
    await chains.append(1, scope);
    await chains.anchor();
    expect(await verify(scope)).toMatchObject({ ok: false, problem: "anchor_forged" });
    expect(await getHead(scope)).toMatchObject({ seq: 4, mac: null });
  }
});

test("an anchor of one chain vouches for no other chain, and a head anchor is no start", async () => {
  const scope = await chains.append(3);
  const other = await chains.append(3);
  await chains.anchor();
  await chains.tamper(sql`update audit_anchors a set seq = b.seq, hash = b.hash, at = b.at, mac = b.mac
    from audit_anchors b where a.scope = ${scope} and b.scope = ${other}`);
  expect(await verify(scope)).toMatchObject({ ok: false, problem: "anchor_forged" });
  await chains.tamper(
    sql`insert into audit_anchors select scope, 'start', seq, hash, at, mac from audit_anchors where scope = ${other}`,
    sql`delete from audit_log where scope = ${other}`,
  );
  expect(await verify(other)).toMatchObject({ ok: false, problem: "anchor_forged" });
});

test("the service never vouches for rows that do not verify since its last anchor", async () => {
  const scope = await chains.append(3);
  await chains.anchor();
  await chains.append(3, scope);
  await chains.tamper(sql`update audit_log set user_id = 'eve' where scope = ${scope} and seq = 5`);
  const { broken } = await anchorChains(chains.ctx);
  expect(broken).toBeGreaterThan(0);
  expect(await verify(scope)).toMatchObject({
    ok: false,
    firstBadSeq: 5,
    problem: "row_changed",
    anchoredSeq: 3,
  });
  expect(await getHead(scope)).toMatchObject({ seq: 6, mac: null });
});

test("a process that has anchored a chain does not anchor it again from an anchor that was put back or removed", async () => {
  const scope = await chains.append(3);
  await chains.anchor();
  await chains.append(2, scope);
  await chains.anchor();
  await chains.tamper(sql`delete from audit_anchors where scope = ${scope}`);
  await chains.tamper(sql`update audit_log set user_id = 'eve' where scope = ${scope} and seq = 2`);
  await chains.rewriteFrom(scope, 2);
  const { broken } = await anchorChains(chains.ctx);
  expect(broken).toBeGreaterThan(0);
  expect(await verify(scope)).toMatchObject({ anchoredSeq: 0 });
});

test("a pass that is cut off keeps the anchor of the rows that it has checked, and the next one goes on", async () => {
  await chains.anchor();
  const scope = await chains.append(5);
  const closing = new AbortController();
  const now = () => {
    closing.abort();
    return systemClock.now();
  };
  const inSteps = { ...chains.ctx, anchorStepRows: 2 };
  await anchorChains({ ...inSteps, clock: { ...systemClock, now } }, closing.signal);
  expect(await verify(scope)).toMatchObject({ ok: true, checked: 5, anchoredSeq: 2 });
  await anchorChains(inSteps);
  expect(await verify(scope)).toMatchObject({ ok: true, checked: 5, anchoredSeq: 5 });
});

test("a reseal moves an anchor to a new first master key, and leaves a forged one as it is", async () => {
  const scope = await chains.append(3);
  const forged = await chains.append(3);
  await chains.anchor();
  await chains.tamper(sql`update audit_anchors set seq = 1 where scope = ${forged}`);
  const next = openKeyring(generateMasterKeys());
  const alone = chains.openNext(next);
  expect(await verifyAudit(alone, { scope })).toMatchObject({ ok: false, problem: "anchor_key_missing" });
  const both = {
    ...next,
    keyIds: [...next.keyIds, ...chains.keyring.keyIds],
    macKey: (keyId: string, purpose: string) =>
      next.macKey(keyId, purpose) ?? chains.keyring.macKey(keyId, purpose),
  };
  const table = SEALED_TABLES.audit_anchors;
  const { columns } = table;
  await chains.ctx.db.transaction(async (tx) => {
    const rows = await lockSealedRows(tx, columns, { filter: "with_mac", after: undefined, limit: 1_000 });
    const find = (of: string) => rows.find((row) => row["scope"] === of) ?? {};
    expect(table.reseal(both, find(forged))).toBeUndefined();
    const patch = table.reseal(both, find(scope));
    expect(patch).toEqual({ mac: expect.stringMatching(`^${next.firstKeyId}:`) });
    await writeSealedRow(tx, columns, { row: find(scope), patch: patch ?? {} });
  });
  expect(await verifyAudit(alone, { scope })).toMatchObject({ ok: true, anchoredSeq: 3 });
});
