import { sql } from "drizzle-orm";
import { toInstantText } from "./audit-log.ts";
import type { Db, RawSql } from "./client.ts";
import { auditAnchors } from "./audit-tables.ts";

export type AnchorRow = typeof auditAnchors.$inferSelect;

/** The place of a row in its chain. */
export interface ChainEnd {
  seq: number;
  hash: string;
}

/** One snapshot of what stands beside the rows of a chain. */
export interface ChainState {
  /** undefined: the chain has no head, so it is empty. */
  head: ChainEnd | undefined;
  /** The highest seq that has a row, 0 when there is none. */
  lastSeq: number;
  anchors: AnchorRow[];
}

/** Every chain, also one whose head or rows are missing. */
export async function listChains(raw: RawSql): Promise<string[]> {
  const rows = await raw<{ scope: string }[]>`
    select scope from audit_heads union select scope from audit_anchors union select distinct scope from audit_log
    order by scope`;
  return rows.map(({ scope }) => scope);
}

export async function findChainState(db: Db, scope: string): Promise<ChainState> {
  const at = toInstantText(sql`at`);
  const [row] = await db.execute<{ head: ChainEnd | null; lastSeq: string; anchors: AnchorRow[] | null }>(
    sql`select (select json_build_object('seq', seq, 'hash', hash) from audit_heads where scope = ${scope}) as head,
          coalesce((select max(seq) from audit_log where scope = ${scope}), 0) as "lastSeq",
          (select json_agg(json_build_object('scope', scope, 'kind', kind, 'seq', seq, 'hash', hash, 'at', ${at},
            'mac', mac)) from audit_anchors where scope = ${scope}) as anchors`,
  );
  if (row === undefined) throw new Error("the query of a chain's state returned no row");
  return { head: row.head ?? undefined, lastSeq: Number(row.lastSeq), anchors: row.anchors ?? [] };
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** Whether something was done that the chain must have: a product was registered, or a key of the product was issued. */
export async function isChainExpected(raw: RawSql, scope: string): Promise<boolean> {
  if (scope === "platform") return (await raw`select from products limit 1`).length > 0;
  if (!UUID.test(scope)) return false;
  return (await raw`select from platform_keys where product_id = ${scope} limit 1`).length > 0;
}

/** Replaces the anchor of this kind, unless it stands further already. */
export async function saveAnchor(db: Db, anchor: AnchorRow): Promise<void> {
  await db
    .insert(auditAnchors)
    .values(anchor)
    .onConflictDoUpdate({
      target: [auditAnchors.scope, auditAnchors.kind],
      set: { seq: anchor.seq, hash: anchor.hash, at: anchor.at, mac: anchor.mac },
      setWhere: sql`${auditAnchors.seq} <= ${anchor.seq}`,
    });
}

/** Chains that have grown since their head was anchored. */
export async function listChainsToAnchor(
  raw: RawSql,
  page: { afterScope: string; limit: number },
): Promise<string[]> {
  const rows = await raw<{ scope: string }[]>`
    select heads.scope from audit_heads heads
    where heads.scope > ${page.afterScope} and heads.seq > 0 and not exists (
      select from audit_anchors a where a.scope = heads.scope and a.kind = 'head' and a.seq >= heads.seq
    )
    order by heads.scope limit ${page.limit}`;
  return rows.map(({ scope }) => scope);
}

/** How long rows are kept at the least, as the owner of the schema decided. undefined: for ever. */
export async function findAuditRetentionS(raw: RawSql): Promise<number | undefined> {
  const [row] = await raw<{ seconds: string }[]>`select seconds from audit_retention`;
  return row && Number(row.seconds);
}

/** Chains whose oldest row is older than that. */
export async function listChainsToRetire(raw: RawSql, retentionS: number): Promise<string[]> {
  const rows = await raw<{ scope: string }[]>`
    select heads.scope from audit_heads heads
    where (select at from audit_log log where log.scope = heads.scope order by seq limit 1)
      < orch_now() - make_interval(secs => ${retentionS}::float8)
    order by heads.scope`;
  return rows.map(({ scope }) => scope);
}

/** The last row up to `toSeq` that is older than the retention. undefined: there is none. */
export async function findLastOldRow(
  raw: RawSql,
  walk: { scope: string; afterSeq: number; toSeq: number; retentionS: number },
): Promise<ChainEnd | undefined> {
  const [row] = await raw<{ seq: string; hash: string }[]>`
    select seq, hash from audit_log
    where scope = ${walk.scope} and seq > ${walk.afterSeq} and seq <= ${walk.toSeq}
      and at < orch_now() - make_interval(secs => ${walk.retentionS}::float8)
    order by seq desc limit 1`;
  return row && { seq: Number(row.seq), hash: row.hash };
}

/** Removes at most so many of the oldest rows, none beyond the `start` anchor. Returns how many it has removed. */
export async function removeRetiredRows(raw: RawSql, scope: string, maxRows: number): Promise<number> {
  const [row] = await raw<{ removed: string }[]>`select retire_audit(${scope}, ${maxRows}) as removed`;
  return Number(row?.removed ?? 0);
}
