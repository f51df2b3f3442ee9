import type { RawSql } from "./client.ts";

/** Creates the hourly partition for the instant `at`, if it is missing. `at` may have any format that Postgres reads. */
export async function ensureTurnPartitionAt(raw: RawSql, at: string): Promise<void> {
  await raw`select ensure_turn_partition(${at}::text::timestamptz)`;
}

const HOURS_AHEAD = 2;

/** Creates the partitions of this hour and of the next hours. The turn log creates any other partition on demand. */
export async function ensureTurnPartitions(raw: RawSql): Promise<void> {
  for (let hour = 0; hour <= HOURS_AHEAD; hour += 1) {
    await raw`select ensure_turn_partition(orch_now() + make_interval(hours => ${hour}::int))`;
  }
}

export interface TurnPartition {
  name: string;
  /** `pending`: an interrupted detach must be finished. `detached`: the table is no longer a partition. */
  state: "attached" | "pending" | "detached";
}

/**
 * Lists the partitions to drop: first the detached and pending ones, then the oldest. An attached partition is listed
 * only if all its turns ended more than `retentionMs` ago.
 */
export async function listRetiredTurnPartitions(raw: RawSql, retentionMs: number): Promise<TurnPartition[]> {
  return raw<TurnPartition[]>`
    with parts as (
      select part.oid, part.relname as name,
        case when inherits.inhrelid is null then 'detached'
             when inherits.inhdetachpending then 'pending' else 'attached' end as state,
        to_timestamp(right(part.relname, 10) || '+00', 'YYYYMMDDHH24TZH') as low
      from pg_class as part
      left join pg_inherits as inherits
        on inherits.inhrelid = part.oid and inherits.inhparent = 'turn_events'::regclass
      where part.relkind = 'r' and part.relname ~ '^turn_events_[0-9]{10}$'
        and part.relnamespace = (select relnamespace from pg_class where oid = 'turn_events'::regclass)
    ), cutoff as (
      select orch_now() - make_interval(secs => ${retentionMs / 1000}::float8) as at
    )
    select name, state from parts, cutoff
    where low + interval '1 hour' <= cutoff.at
      and (state <> 'attached' or not exists (
        select from turns where started_at >= low and started_at < low + interval '1 hour'
          and (ended_at is null or ended_at > cutoff.at)))
    order by state = 'attached', low`;
}

/** How long dropping a partition may block readers and writers. */
const LOCK_TIMEOUT = "2s";

/**
 * Detaches the partition without blocking writers, then drops it.
 *
 * @throws if Postgres grants no lock in time. The next attempt continues from the state reached so far.
 */
export async function dropTurnPartition(raw: RawSql, partition: TurnPartition): Promise<void> {
  const connection = await raw.reserve();
  try {
    // `detach … concurrently` cannot run in a transaction, so the lock timeout is set for the session.
    await connection.unsafe(`set lock_timeout = '${LOCK_TIMEOUT}'`);
    const detach = partition.state === "pending" ? "finalize" : "concurrently";
    if (partition.state !== "detached") {
      await connection.unsafe(`alter table turn_events detach partition ${partition.name} ${detach}`);
    }
    await connection.unsafe(`drop table ${partition.name}`);
  } finally {
    await connection.unsafe("set lock_timeout to default").catch(() => {
      // The connection has broken, so its settings do not matter.
    });
    connection.release();
  }
}

/** Whether retention has dropped the turn's partition. If the turn ended recently, a missing partition never existed. */
export async function isTurnLogRetired(
  raw: RawSql,
  turn: { startedAt: string; endedAt: string | null },
  retentionMs: number,
): Promise<boolean> {
  const [row] = await raw<{ retired: boolean }[]>`
    select ${turn.endedAt}::text::timestamptz <= orch_now() - make_interval(secs => ${retentionMs / 1000}::float8)
      and not exists (
        select from pg_inherits join pg_class on pg_class.oid = inhrelid
        where inhparent = 'turn_events'::regclass and not inhdetachpending
          and relname = 'turn_events_' ||
            to_char(${turn.startedAt}::text::timestamptz at time zone 'UTC', 'YYYYMMDDHH24')
      ) as retired`;
  return row?.retired ?? false;
}
