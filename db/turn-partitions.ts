import { setTimeout as delay } from "node:timers/promises";
import type { RawSql } from "./client.ts";
import { findPostgresError } from "./postgres-error.ts";

const LOCK_NOT_AVAILABLE = "55P03";

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

const DROP_ATTEMPTS = 10;
const DROP_PAUSE_MS = 200;

/**
 * Drops the partition. That needs an exclusive lock of `turn_events`, for which each attempt waits 50 ms only: readers and
 * writers that come meanwhile wait behind it.
 *
 * @throws if Postgres grants no lock in any attempt.
 */
export async function dropTurnPartition(raw: RawSql, partition: TurnPartition): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      await raw`select drop_turn_partition(${partition.name})`;
      return;
    } catch (error) {
      if (findPostgresError(error)?.code !== LOCK_NOT_AVAILABLE || attempt === DROP_ATTEMPTS) throw error;
    }
    await delay(DROP_PAUSE_MS);
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
