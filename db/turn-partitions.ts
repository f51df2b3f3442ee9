import type { RawSql } from "./client.ts";

/** Makes the hourly partition that `at` (anything Postgres reads as an instant) falls in, if there is none. */
export async function ensureTurnPartitionAt(raw: RawSql, at: string): Promise<void> {
  await raw`select ensure_turn_partition(${at}::text::timestamptz)`;
}

/** Makes the partitions of this hour and of the `hours` after it. */
export async function ensureTurnPartitionsAhead(raw: RawSql, hours: number): Promise<void> {
  for (let hour = 0; hour <= hours; hour += 1) {
    await raw`select ensure_turn_partition(orch_now() + make_interval(hours => ${hour}::int))`;
  }
}

export interface TurnPartition {
  name: string;
  /** `pending`: detaching began and was cut short. `detached`: only its table is left. */
  state: "attached" | "pending" | "detached";
}

/**
 * Partitions of whose turns none is live and none ended less than `retentionMs` ago, oldest first, and what earlier
 * attempts left half done.
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
    ), cut as (
      select orch_now() - make_interval(secs => ${retentionMs / 1000}::float8) as at
    )
    select name, state from parts, cut
    where low + interval '1 hour' <= cut.at
      and (state <> 'attached' or not exists (
        select from turns where started_at >= low and started_at < low + interval '1 hour'
          and (ended_at is null or ended_at > cut.at)))
    order by state = 'attached', low`;
}

/** How long taking a partition away may stand in the way of readers and writers. */
const LOCK_TIMEOUT = "2s";

/**
 * Detaches without stopping writers, then drops.
 *
 * @throws when a lock did not come in time; what was done so far stays, and the next attempt goes on from there.
 */
export async function dropTurnPartition(raw: RawSql, partition: TurnPartition): Promise<void> {
  const connection = await raw.reserve();
  try {
    // Neither statement may run in a transaction, so their time limit is the session's for a while.
    await connection.unsafe(`set lock_timeout = '${LOCK_TIMEOUT}'`);
    const detach = partition.state === "pending" ? "finalize" : "concurrently";
    if (partition.state !== "detached") {
      await connection.unsafe(`alter table turn_events detach partition ${partition.name} ${detach}`);
    }
    await connection.unsafe(`drop table ${partition.name}`);
  } finally {
    await connection.unsafe("set lock_timeout to default").catch(() => {
      // The connection is gone, and its settings with it.
    });
    connection.release();
  }
}

/** Whether a turn's events went with their partition; one that never was made is not one that was dropped. */
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
