import { sql } from "drizzle-orm";
import type { Db } from "./client.ts";
import { toStatement } from "./prepared-statement.ts";

/** A record and the replica that owns it. Only that replica changes the record. */
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
  /** True if the owner's heartbeat is younger than the lease, by the database's clock. */
  ownerAlive: boolean;
}

const LIFETIME = sql.raw(`interval '24 hours'`);
const param = (name: string) => sql.placeholder(name);
const isRunning = ({ scope, key, replicaId }: IdempotencyOwner) =>
  sql`scope = ${scope} and key = ${key} and state = 'running' and replica_id = ${replicaId}`;

const insertStatement = toStatement<{ [Name in keyof NewIdempotencyRecord]: string }, { key: string }>(
  "idempotency_insert",
  sql`insert into idempotency (scope, key, procedure, fingerprint, state, replica_id, created_at, expires_at)
      values (${param("scope")}, ${param("key")}, ${param("procedure")}, ${param("fingerprint")}, 'running',
        ${param("replicaId")}, orch_now(), orch_now() + ${LIFETIME})
      on conflict (scope, key) do nothing
      returning key`,
);

/** False if the key has a record already. */
export async function insertIdempotencyRecord(db: Db, record: NewIdempotencyRecord): Promise<boolean> {
  return (await insertStatement(db, { ...record })).length > 0;
}

export async function findIdempotencyRecord(
  db: Db,
  search: { scope: string; key: string; leaseMs: number },
): Promise<IdempotencyRow | undefined> {
  const [row] = await db.execute<{ [Name in keyof IdempotencyRow]: IdempotencyRow[Name] }>(
    sql`select record.scope, record.key, record.procedure, record.fingerprint, record.state,
          record.replica_id as "replicaId", record.subject, record.reply_sealed as "replySealed",
          record.expires_at <= orch_now() as expired,
          exists (select from replicas owner where owner.id = record.replica_id
            and owner.heartbeat_at > orch_now() - make_interval(secs => ${search.leaseMs / 1000}::float8)
          ) as "ownerAlive"
        from idempotency record
        where record.scope = ${search.scope} and record.key = ${search.key}`,
  );
  return row;
}

/** Makes this replica the owner of a running record. False if another replica took the record over first. */
export async function takeOverIdempotencyRecord(
  db: Db,
  record: IdempotencyOwner & { fromReplicaId: string },
): Promise<boolean> {
  const rows = await db.execute(
    sql`update idempotency set replica_id = ${record.replicaId}, expires_at = orch_now() + ${LIFETIME}
        where ${isRunning({ ...record, replicaId: record.fromReplicaId })} returning key`,
  );
  return rows.length > 0;
}

/** Deletes the record if it has expired, so that the key can be used again. */
export async function deleteExpiredIdempotencyRecord(
  db: Db,
  record: { scope: string; key: string },
): Promise<void> {
  await db.execute(
    sql`delete from idempotency
        where scope = ${record.scope} and key = ${record.key} and expires_at <= orch_now()`,
  );
}

/** False if another replica owns the record by now. */
export async function setIdempotencySubject(
  db: Db,
  record: IdempotencyOwner & { subject: string | null },
): Promise<boolean> {
  const rows = await db.execute(
    sql`update idempotency set subject = ${record.subject} where ${isRunning(record)} returning key`,
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

/** False if another replica owns the record by now. */
export async function completeIdempotencyRecord(
  db: Db,
  record: IdempotencyOwner & { replySealed: string },
): Promise<boolean> {
  return (await completeStatement(db, { ...record })).length > 0;
}

export interface BoundedReply {
  replySealed: string;
  /** Stored instead, if the scope has no room left for the reply in this hour. */
  substituteSealed: string;
  maxBytesPerHour: number;
}

const completeBoundedStatement = toStatement<
  {
    [Name in keyof IdempotencyOwner | "replySealed" | "substituteSealed" | "bytes" | "maxBytes"]: string;
  },
  { key: string }
>(
  "idempotency_complete_bounded",
  sql`with mine as (
        select scope from idempotency
        where scope = ${param("scope")} and key = ${param("key")} and state = 'running'
          and replica_id = ${param("replicaId")}
        for update
      ), counted as (
        insert into stored_bytes (scope, kind, hour, bytes)
        select scope, 'replies', date_trunc('hour', orch_now(), 'UTC'), ${param("bytes")}::bigint from mine
        on conflict (scope, kind, hour) do update set bytes = stored_bytes.bytes + excluded.bytes
          where stored_bytes.bytes + excluded.bytes <= ${param("maxBytes")}::bigint
        returning scope
      )
      update idempotency set state = 'done', reply_sealed = case
        when exists (select from counted) then ${param("replySealed")} else ${param("substituteSealed")} end
      where scope = (select scope from mine) and key = ${param("key")}
      returning key`,
);

/**
 * Stores the reply of a call if that keeps the scope's replies of this hour within `maxBytesPerHour`, else the
 * substitute. False if another replica owns the record by now.
 */
export async function completeIdempotencyRecordWithin(
  db: Db,
  { scope, key, replicaId }: IdempotencyOwner,
  { replySealed, substituteSealed, maxBytesPerHour }: BoundedReply,
): Promise<boolean> {
  const values = { scope, key, replicaId, replySealed, substituteSealed };
  const limits = { bytes: String(replySealed.length), maxBytes: String(maxBytesPerHour) };
  return (await completeBoundedStatement(db, { ...values, ...limits })).length > 0;
}

/** No replica has this id. A record that it owns may be taken over by any replica. */
const NO_REPLICA = "00000000-0000-0000-0000-000000000000";

/**
 * Gives up a running record after its call has failed. With a subject the record stays, and a retry resumes the work.
 * Without a subject it is deleted: the key is free.
 */
export async function releaseIdempotencyRecord(db: Db, owner: IdempotencyOwner): Promise<void> {
  await db.execute(
    sql`with mine as (
          select scope, key, subject is not null as kept from idempotency
          where ${isRunning(owner)} for update
        ), gone as (
          delete from idempotency using mine
          where idempotency.scope = mine.scope and idempotency.key = mine.key and not mine.kept
        )
        update idempotency set replica_id = ${NO_REPLICA}
        from mine where idempotency.scope = mine.scope and idempotency.key = mine.key and mine.kept`,
  );
}

const EXPIRED_BATCH = 1_000;

/** Deletes expired records in batches, so that no statement runs long. Returns how many there were. */
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
