import { sql } from "drizzle-orm";
import type { Db } from "./client.ts";
import { toStatement } from "./prepared-statement.ts";

/** Which key, and whose: a claim is changed only by the replica that holds it. */
export interface IdempotencyOwner {
  scope: string;
  key: string;
  replicaId: string;
}

export interface NewIdempotencyRecord extends IdempotencyOwner {
  procedure: string;
  fingerprint: string;
}

export interface IdempotencyRow extends NewIdempotencyRecord {
  state: "running" | "done";
  subject: string | null;
  replySealed: string | null;
  expired: boolean;
  /** Whether the owner's heartbeat is younger than the lease, by the database's clock. */
  ownerAlive: boolean;
}

const LIFETIME = sql.raw(`interval '24 hours'`);
const param = (name: string) => sql.placeholder(name);

const insertStatement = toStatement<{ [Name in keyof NewIdempotencyRecord]: string }, { key: string }>(
  "idempotency_insert",
  sql`insert into idempotency (scope, key, procedure, fingerprint, state, replica_id, created_at, expires_at)
      values (${param("scope")}, ${param("key")}, ${param("procedure")}, ${param("fingerprint")}, 'running',
        ${param("replicaId")}, orch_now(), orch_now() + ${LIFETIME})
      on conflict (scope, key) do nothing
      returning key`,
);

/** False when the key is in use already. */
export async function insertIdempotencyRecord(db: Db, claim: NewIdempotencyRecord): Promise<boolean> {
  return (await insertStatement(db, { ...claim })).length > 0;
}

export async function findIdempotencyRecord(
  db: Db,
  search: { scope: string; key: string; leaseMs: number },
): Promise<IdempotencyRow | undefined> {
  const [row] = await db.execute<{ [Name in keyof IdempotencyRow]: IdempotencyRow[Name] }>(
    sql`select claim.scope, claim.key, claim.procedure, claim.fingerprint, claim.state,
          claim.replica_id as "replicaId", claim.subject, claim.reply_sealed as "replySealed",
          claim.expires_at <= orch_now() as expired,
          exists (select from replicas owner where owner.id = claim.replica_id
            and owner.heartbeat_at > orch_now() - make_interval(secs => ${search.leaseMs / 1000}::float8)
          ) as "ownerAlive"
        from idempotency claim
        where claim.scope = ${search.scope} and claim.key = ${search.key}`,
  );
  return row;
}

/** Moves a claim from a dead owner to a living one; false when somebody else was faster. */
export async function takeOverIdempotencyRecord(
  db: Db,
  claim: IdempotencyOwner & { fromReplicaId: string },
): Promise<boolean> {
  const rows = await db.execute(
    sql`update idempotency set replica_id = ${claim.replicaId}, expires_at = orch_now() + ${LIFETIME}
        where scope = ${claim.scope} and key = ${claim.key} and state = 'running'
          and replica_id = ${claim.fromReplicaId}
        returning key`,
  );
  return rows.length > 0;
}

/** Removes a claim that nobody needs any more, so that the key can be used afresh. */
export async function deleteExpiredIdempotencyRecord(
  db: Db,
  claim: { scope: string; key: string },
): Promise<void> {
  await db.execute(
    sql`delete from idempotency
        where scope = ${claim.scope} and key = ${claim.key} and expires_at <= orch_now()`,
  );
}

/** False when the claim is no longer the owner's. */
export async function setIdempotencySubject(
  tx: Db,
  claim: IdempotencyOwner & { subject: string },
): Promise<boolean> {
  const rows = await tx.execute(
    sql`update idempotency set subject = ${claim.subject}
        where scope = ${claim.scope} and key = ${claim.key} and state = 'running'
          and replica_id = ${claim.replicaId}
        returning key`,
  );
  return rows.length > 0;
}

const completeStatement = toStatement<
  { [Name in keyof IdempotencyOwner | "replySealed"]: string },
  { key: string }
>(
  "idempotency_complete",
  sql`update idempotency set state = 'done', reply_sealed = ${param("replySealed")}
      where scope = ${param("scope")} and key = ${param("key")} and state = 'running'
        and replica_id = ${param("replicaId")}
      returning key`,
);

/** False when the claim is no longer the owner's. */
export async function completeIdempotencyRecord(
  db: Db,
  claim: IdempotencyOwner & { replySealed: string },
): Promise<boolean> {
  return (await completeStatement(db, { ...claim })).length > 0;
}

/** No replica has this id, so a claim that it owns is free to be taken over. */
const NOBODY = "00000000-0000-0000-0000-000000000000";

/**
 * Gives a running claim up. With `keepSubject`, one that noted a subject stays behind for a retry to resume;
 * otherwise the key is as if it had never been used.
 */
export async function releaseIdempotencyRecord(
  db: Db,
  claim: IdempotencyOwner & { keepSubject: boolean },
): Promise<void> {
  await db.execute(
    sql`with mine as (
          select scope, key, ${claim.keepSubject}::boolean and subject is not null as kept from idempotency
          where scope = ${claim.scope} and key = ${claim.key} and state = 'running'
            and replica_id = ${claim.replicaId}
          for update
        ), gone as (
          delete from idempotency using mine
          where idempotency.scope = mine.scope and idempotency.key = mine.key and not mine.kept
        )
        update idempotency set replica_id = ${NOBODY}
        from mine where idempotency.scope = mine.scope and idempotency.key = mine.key and mine.kept`,
  );
}

const EXPIRED_BATCH = 1_000;

/** Removes them a batch at a time, so that no statement runs long; returns how many there were. */
export async function removeExpiredIdempotencyRecords(db: Db): Promise<number> {
  let removed = 0;
  for (;;) {
    const rows = await db.execute(
      sql`delete from idempotency where (scope, key) in (
            select scope, key from idempotency where expires_at <= orch_now()
            order by expires_at limit ${EXPIRED_BATCH} for update skip locked
          ) returning key`,
    );
    removed += rows.length;
    if (rows.length < EXPIRED_BATCH) return removed;
  }
}
