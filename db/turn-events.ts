import type { RawSql } from "./client.ts";
import type { LogChunk, StoredChunk } from "./log-chunk.ts";
import { findPostgresError } from "./postgres-error.ts";
import type { TurnKey, TurnStatus } from "./turns.ts";

/** A row that is to be written. */
export interface AppendedChunk extends LogChunk {
  /** The engine's id of the last of these events; null if the engine does not number its events. */
  engineEventId: string | null;
}

export interface TurnAppend extends TurnKey {
  fencingToken: number;
  /** The sequence number of the last event, or of the end. */
  lastSeq: number;
  reservedSeq: number;
  bytes: number;
  status: TurnStatus;
  /** The end as JSON text; undefined while the turn is live. */
  end: string | undefined;
  chunks: readonly (AppendedChunk & { sealed?: Buffer | undefined })[];
}

export interface AppendOptions {
  ownerReplica: string;
  /** For products whose policy does not have the limit. */
  logBytesPerHour: number;
}

/** What the log has of a turn's product. */
export interface ProductLog {
  /** In this hour; 0 if the commit logged nothing for the product. */
  bytes: number;
  /** How much the product may log in an hour. */
  maxBytes: number;
}

// Many texts are sent as one parameter, joined by this character. That saves escaping them. JSON never contains it raw.
const SEPARATOR = "\u001e";

/**
 * Commits the new events of many turns, in one statement. Returns the indexes of the turns that the owner still owned,
 * each with the log of its product.
 *
 * If its outcome is unknown, it may be repeated with the same events or more. A row with the same first event is
 * replaced, and a statement that arrives after a later one changes nothing.
 */
export async function appendToTurnLog(
  raw: RawSql,
  { ownerReplica, logBytesPerHour }: AppendOptions,
  appends: readonly TurnAppend[],
): Promise<Map<number, ProductLog>> {
  const chunks = toColumns(appends);
  const rows = await raw<({ n: number } & ProductLog)[]>`
    with head as (
      select * from unnest(
        ${appends.map((append) => append.productId)}::uuid[],
        ${appends.map((append) => append.turnId)}::uuid[],
        ${appends.map((append) => append.fencingToken)}::bigint[],
        ${appends.map((append) => append.lastSeq)}::bigint[],
        ${appends.map((append) => append.reservedSeq)}::bigint[],
        ${appends.map((append) => append.bytes)}::bigint[],
        ${appends.map((append) => append.status)}::text[],
        string_to_array(${appends.map((append) => append.end ?? "").join(SEPARATOR)}, chr(30))
      ) with ordinality as head (product_id, turn_id, fencing_token, last_seq, reserved_seq, bytes, status, "end", n)
    ), owned as (
      update turns set
        last_seq = head.last_seq, reserved_seq = greatest(turns.reserved_seq, head.reserved_seq),
        bytes = head.bytes, status = head.status, "end" = nullif(head."end", ''),
        ended_at = case when head."end" <> '' then coalesce(turns.ended_at, orch_now()) end
      from head
      where turns.product_id = head.product_id and turns.id = head.turn_id
        and turns.owner_replica = ${ownerReplica} and turns.fencing_token = head.fencing_token
        and turns.last_seq <= head.last_seq
        and (turns.status in ('starting', 'streaming') or turns."end" = head."end")
      returning head.n, turns.product_id, turns.id, turns.started_at
    ), appended as (
      insert into turn_events
        (product_id, turn_id, turn_started_at, first_seq, last_seq, events, sealed, engine_event_id)
      select owned.product_id, owned.id, owned.started_at, chunk.first_seq, chunk.last_seq, nullif(chunk.events, ''),
        decode(nullif(chunk.sealed, ''), 'base64'), nullif(chunk.engine_event_id, '')
      from unnest(
        ${chunks.turn}::bigint[],
        ${chunks.firstSeq}::bigint[],
        ${chunks.lastSeq}::bigint[],
        string_to_array(${chunks.events}, chr(30)),
        string_to_array(${chunks.sealed}, chr(30)),
        string_to_array(${chunks.engineEventId}, chr(30))
      ) as chunk (n, first_seq, last_seq, events, sealed, engine_event_id)
      join owned using (n)
      on conflict (product_id, turn_id, first_seq, turn_started_at)
        do update set last_seq = excluded.last_seq, events = excluded.events, sealed = excluded.sealed,
          engine_event_id = excluded.engine_event_id
      returning product_id, coalesce(octet_length(events), octet_length(sealed)) as bytes
    ), counted as (
      insert into stored_bytes (scope, kind, hour, bytes)
      select product_id::text, 'turn_log', date_trunc('hour', orch_now(), 'UTC'), sum(bytes)
      from appended group by product_id order by product_id
      on conflict (scope, kind, hour) do update set bytes = stored_bytes.bytes + excluded.bytes
      returning scope, bytes
    )
    select n::float8 as n, coalesce(counted.bytes, 0)::float8 as bytes,
      coalesce((policy->>'turnLogBytesPerHour')::bigint, ${logBytesPerHour})::float8 as "maxBytes"
    from owned left join counted on counted.scope = owned.product_id::text
      left join products on products.id = owned.product_id`;
  return new Map(rows.map(({ n, ...log }) => [n - 1, log]));
}

function join(texts: readonly string[]): string {
  return texts.join(SEPARATOR);
}

/** The rows to write, as one parameter for each column. `turn` counts from 1. */
function toColumns(appends: readonly TurnAppend[]) {
  const chunks = appends.flatMap((append, index) =>
    append.chunks.map((chunk) => ({ turn: index + 1, ...chunk })),
  );
  return {
    turn: chunks.map(({ turn }) => turn),
    firstSeq: chunks.map(({ firstSeq }) => firstSeq),
    lastSeq: chunks.map(({ lastSeq }) => lastSeq),
    events: join(chunks.map(({ sealed, events }) => (sealed === undefined ? events : ""))),
    sealed: join(chunks.map(({ sealed }) => sealed?.toString("base64") ?? "")),
    engineEventId: join(chunks.map(({ engineEventId }) => engineEventId ?? "")),
  };
}

/** Whether an append failed because no partition covers the turn's start. */
export function isPartitionMissing(error: unknown): boolean {
  const failure = findPostgresError(error);
  return failure?.code === "23514" && failure.constraint_name === undefined;
}

export interface LogPage extends TurnKey {
  startedAt: string;
  afterSeq: number;
  /** The page ends with the row that reaches this size. */
  maxBytes: number;
}

const PAGE_MAX_ROWS = 256;

/** The rows with events after `afterSeq`, in order. The first row may begin with earlier events. */
export async function readTurnLog(raw: RawSql, page: LogPage): Promise<StoredChunk[]> {
  const { productId, turnId, startedAt, afterSeq } = page;
  const turn = raw`product_id = ${productId} and turn_id = ${turnId}
    and turn_started_at = ${startedAt}::text::timestamptz`;
  return raw<StoredChunk[]>`
    select first_seq::float8 as "firstSeq", last_seq::float8 as "lastSeq", events, sealed
    from (
      select *, sum(bytes) over (order by first_seq) - bytes as bytes_before
      from (
        select first_seq, last_seq, events, sealed, coalesce(octet_length(events), octet_length(sealed)) as bytes
        from turn_events
        where ${turn} and last_seq > ${afterSeq} and first_seq >= coalesce(
          (select max(first_seq) from turn_events where ${turn} and first_seq <= ${afterSeq}), 0)
        order by first_seq limit ${PAGE_MAX_ROWS}
      ) as rows
    ) as sized
    where bytes_before < ${page.maxBytes}
    order by first_seq`;
}

const ABOUT_MAX_ROWS = 32;
/** How the type of an event that asks or answers a question begins, in a row's text. */
export const QUESTION_MARK = '"type":"hitl_';

/** The newest rows, in order, with an event that asks or answers a question. A sealed row says so in its second byte. */
export async function readChunksAboutQuestions(
  raw: RawSql,
  turn: TurnKey & { startedAt: string },
): Promise<StoredChunk[]> {
  const rows = await raw<StoredChunk[]>`
    select first_seq::float8 as "firstSeq", last_seq::float8 as "lastSeq", events, sealed from turn_events
    where product_id = ${turn.productId} and turn_id = ${turn.turnId}
      and turn_started_at = ${turn.startedAt}::text::timestamptz
      and (strpos(events, ${QUESTION_MARK}) > 0 or substring(sealed from 2 for 1) = decode('01', 'hex'))
    order by first_seq desc limit ${ABOUT_MAX_ROWS}`;
  return rows.toReversed();
}
