import { eq, sql } from "drizzle-orm";
import type { Db } from "./client.ts";
import { operators, platformKeys } from "./schema.ts";

/** What the tables of platform keys and operator keys have in common. */
type KeyTable = typeof platformKeys | typeof operators;

const isPast = (column: KeyTable["expiresAt"]) => sql<boolean>`coalesce(${column} <= orch_now(), false)`;
const isUsageStale = (table: KeyTable) =>
  sql<boolean>`coalesce(${table.lastUsedAt} <= orch_now() - interval '1 minute', true)`;

/** A key and its validity by the database's clock. */
export interface KeyStateRow extends Pick<
  KeyTable["$inferSelect"],
  "id" | "name" | "prefix" | "hash" | "expiresAt" | "revokedAt" | "mac"
> {
  expired: boolean;
  revoked: boolean;
  /** The time of the last use was written more than a minute ago, or never. */
  usageStale: boolean;
}

/** The columns of a `KeyStateRow`. */
export function toStateColumns(table: KeyTable) {
  return {
    id: table.id,
    name: table.name,
    prefix: table.prefix,
    hash: table.hash,
    expiresAt: table.expiresAt,
    revokedAt: table.revokedAt,
    mac: table.mac,
    expired: isPast(table.expiresAt).as("expired"),
    revoked: isPast(table.revokedAt).as("revoked"),
    usageStale: isUsageStale(table).as("usage_stale"),
  };
}

const KEY_TABLES = { platform: platformKeys, operator: operators } as const;
export type KeyKind = keyof typeof KEY_TABLES;

/** Writes the time of use only if it is stale, so that all replicas together write about once a minute. */
export async function recordKeyUsed(db: Db, kind: KeyKind, id: string): Promise<void> {
  const table = KEY_TABLES[kind];
  await db.execute(
    sql`update ${table} set last_used_at = orch_now() where ${eq(table.id, id)} and ${isUsageStale(table)}`,
  );
}

/** A locked row, and the time of the database's clock. */
export type LockedKey<Row> = Row & { now: string };

export type KeyRow<Kind extends KeyKind> = (typeof KEY_TABLES)[Kind]["$inferSelect"];

/** Locks the key until the transaction ends. undefined: there is none. */
export async function lockKey<Kind extends KeyKind>(
  tx: Db,
  kind: Kind,
  id: string,
): Promise<LockedKey<KeyRow<Kind>> | undefined> {
  const table: KeyTable = KEY_TABLES[kind];
  const [row] = await tx.select().from(table).where(eq(table.id, id)).for("update");
  if (row === undefined) return undefined;
  const [clock] = await tx.execute<{ now: string }>(sql`select orch_now()::text as now`);
  return { ...(row as KeyRow<Kind>), now: clock?.now ?? "" };
}

/** The key has to be locked. */
export async function setKeyRevoked(
  tx: Db,
  kind: KeyKind,
  { id, revokedAt, mac }: { id: string; revokedAt: string; mac: string | null },
): Promise<void> {
  const table = KEY_TABLES[kind];
  await tx.execute(
    sql`update ${table} set revoked_at = ${revokedAt}, mac = ${mac} where ${eq(table.id, id)}`,
  );
}
