import type { RawSql } from "./client.ts";
import type { CallableEngine, UsableEngine } from "./engines.ts";
import type { StoredChunk } from "./log-chunk.ts";
import type { turns } from "./schema.ts";

export interface TurnKey {
  productId: string;
  turnId: string;
}

export type TurnRow = TurnKey & Omit<typeof turns.$inferSelect, "id">;
export type TurnStatus = TurnRow["status"];
export type NewTurn = Omit<TurnRow, "status" | "lastSeq" | "bytes" | "startedAt" | "endedAt" | "end">;

// postgres.js returns float8 as a number, but bigint as text. float8 holds every sequence number exactly. Timestamps
// are read and written in Postgres' text format, which keeps their microseconds.
const columns = (raw: RawSql) => raw`
  product_id as "productId", id as "turnId", user_id as "userId", engine_id as "engineId", generation,
  task_id as "taskId", fingerprint, started_by as "startedBy", status, owner_replica as "ownerReplica", fencing_token::float8 as "fencingToken",
  last_seq::float8 as "lastSeq", reserved_seq::float8 as "reservedSeq", bytes::float8 as bytes,
  started_at::text as "startedAt", ended_at::text as "endedAt", "end"`;

export async function findTurn(raw: RawSql, key: TurnKey): Promise<TurnRow | undefined> {
  const [row] = await raw<TurnRow[]>`
    select ${columns(raw)} from turns where product_id = ${key.productId} and id = ${key.turnId}`;
  return row;
}

/**
 * Inserts a turn in `starting`, and returns its start. undefined: the product already has a turn with this id. Violates
 * `turns_live_task_key` if the task has a live turn.
 */
export async function insertTurn(raw: RawSql, turn: NewTurn): Promise<string | undefined> {
  const [row] = await raw<{ startedAt: string }[]>`
    insert into turns (product_id, id, user_id, engine_id, generation, task_id, fingerprint, started_by, status,
      owner_replica, fencing_token, reserved_seq, started_at)
    values (${turn.productId}, ${turn.turnId}, ${turn.userId}, ${turn.engineId}, ${turn.generation},
      ${turn.taskId}, ${turn.fingerprint}, ${turn.startedBy}, 'starting', ${turn.ownerReplica}, ${turn.fencingToken},
      ${turn.reservedSeq}, orch_now())
    on conflict (product_id, id) do nothing
    returning started_at::text as "startedAt"`;
  return row?.startedAt;
}

/** The limits of a product that count when a turn begins: those of its policy, else the installation's. */
export interface TurnLimits {
  logBytesPerHour: number;
  liveTurns: number;
  /** null: the turns of one key are not limited apart. */
  liveTurnsPerKey: number | null;
}

export interface BegunTurn {
  engine: UsableEngine | undefined;
  /** undefined: no turn was inserted. */
  startedAt: string | undefined;
  /** The limit that the turn would exceed. undefined: no limit kept the turn from being inserted. */
  exceeded: ExceededLimit | undefined;
  limits: TurnLimits;
}

export type ExceededLimit =
  { limit: "liveTurns" | "liveTurnsPerKey" } | { limit: "logBytesPerHour"; hourEndsInMs: number };

export interface BeginOptions {
  expectGeneration: number | undefined;
  /** For a product whose policy does not have the limit. */
  defaults: Pick<TurnLimits, "logBytesPerHour" | "liveTurns">;
}

/**
 * Reads the user's engine and inserts a turn for it, in one statement. Inserts nothing if the engine is not running or
 * has another generation than expected, if the product already has a turn with this id, or if a limit is reached. The
 * limits are those of the policy at this moment.
 */
export async function beginTurn(
  raw: RawSql,
  turn: Omit<NewTurn, "engineId" | "generation">,
  options: BeginOptions,
): Promise<BegunTurn> {
  const begun = await tryBeginTurn(raw, turn, { ...options, alone: false });
  // Close to a limit, the turns of a product begin one at a time.
  return begun === "again" ? requireBegun(await tryBeginTurn(raw, turn, { ...options, alone: true })) : begun;
}

function requireBegun(begun: BegunTurn | "again"): BegunTurn {
  if (begun === "again") throw new Error("a turn that begins alone was told to begin again");
  return begun;
}

const LIMIT_OF = { product: "liveTurns", key: "liveTurnsPerKey" } as const;

interface BegunRow extends UsableEngine, TurnLimits {
  startedAt: string | null;
  hourEndsInMs: number | null;
  /** See the function `refuse_live_turn`. */
  refusal: keyof typeof LIMIT_OF | "again" | null;
}

async function tryBeginTurn(
  raw: RawSql,
  turn: Omit<NewTurn, "engineId" | "generation">,
  { expectGeneration, defaults, alone }: BeginOptions & { alone: boolean },
): Promise<BegunTurn | "again"> {
  const [row] = await raw<BegunRow[]>`
    with engine as (
      select * from engines where product_id = ${turn.productId} and user_id = ${turn.userId}
    ), limits as (
      select coalesce((policy->>'turnLogBytesPerHour')::bigint, ${defaults.logBytesPerHour}) as log_bytes,
        coalesce((policy->>'maxLiveTurns')::integer, ${defaults.liveTurns}) as live_turns,
        (policy->>'maxLiveTurnsPerKey')::integer as live_turns_per_key
      from products where id = ${turn.productId}
    ), full_log as (
      select extract(epoch from hour + interval '1 hour' - orch_now())::float8 * 1000 as ends_in_ms
      from stored_bytes, limits
      where scope = ${turn.productId} and kind = 'turn_log' and hour = date_trunc('hour', orch_now(), 'UTC')
        and bytes >= log_bytes
    ), admitted as materialized (
      select refuse_live_turn(${turn.productId}, ${turn.startedBy}, live_turns, live_turns_per_key, ${alone})
        as refusal
      from engine, limits
      where engine.status = 'running'
        and engine.generation = coalesce(${expectGeneration ?? null}::integer, engine.generation)
        and not exists (select from full_log)
    ), begun as (
      insert into turns (product_id, id, user_id, engine_id, generation, task_id, fingerprint, started_by, status,
        owner_replica, fencing_token, reserved_seq, started_at)
      select ${turn.productId}, ${turn.turnId}, ${turn.userId}, engine.id, engine.generation,
        ${turn.taskId}, ${turn.fingerprint}, ${turn.startedBy}, 'starting', ${turn.ownerReplica}, ${turn.fencingToken},
        ${turn.reservedSeq}, orch_now()
      from engine, admitted
      where refusal is null
      on conflict (product_id, id) do nothing
      returning started_at::text
    )
    select id, product_id as "productId", user_id as "userId", status, status_reason as "statusReason", desired,
      generation, endpoint, endpoint_mac as "endpointMac", key_sealed as "keySealed",
      next_restart_at::text as "nextRestartAt",
      log_bytes::float8 as "logBytesPerHour", live_turns as "liveTurns", live_turns_per_key as "liveTurnsPerKey",
      (select started_at from begun) as "startedAt", (select ends_in_ms from full_log) as "hourEndsInMs",
      (select refusal from admitted) as refusal
    from engine, limits`;
  if (row === undefined) {
    const limits = { ...defaults, liveTurnsPerKey: null };
    return { engine: undefined, startedAt: undefined, exceeded: undefined, limits };
  }
  const { startedAt, hourEndsInMs, refusal, logBytesPerHour, liveTurns, liveTurnsPerKey, ...engine } = row;
  if (refusal === "again") return "again";
  const limits = { logBytesPerHour, liveTurns, liveTurnsPerKey };
  const exceeded = toExceeded(refusal, hourEndsInMs);
  return { engine, startedAt: startedAt ?? undefined, exceeded, limits };
}

function toExceeded(
  refusal: keyof typeof LIMIT_OF | null,
  hourEndsInMs: number | null,
): ExceededLimit | undefined {
  if (hourEndsInMs !== null) return { limit: "logBytesPerHour", hourEndsInMs };
  return refusal === null ? undefined : { limit: LIMIT_OF[refusal] };
}

/** Deletes a turn that never reached its engine. */
export async function deleteStartingTurn(
  raw: RawSql,
  turn: TurnKey & Pick<TurnRow, "ownerReplica" | "fencingToken">,
): Promise<void> {
  await raw`
    delete from turns
    where product_id = ${turn.productId} and id = ${turn.turnId} and status = 'starting'
      and owner_replica = ${turn.ownerReplica} and fencing_token = ${turn.fencingToken}`;
}

export interface TurnPage {
  productId: string;
  userId: string;
  /** The last turn of the previous page. */
  after?: { startedAt: string; turnId: string } | undefined;
  limit: number;
}

/** Newest first. */
export async function listTurnRows(raw: RawSql, page: TurnPage): Promise<TurnRow[]> {
  const after = page.after
    ? raw`and (started_at, id) < (${page.after.startedAt}::text::timestamptz, ${page.after.turnId}::uuid)`
    : raw``;
  return raw<TurnRow[]>`
    select ${columns(raw)} from turns
    where product_id = ${page.productId} and user_id = ${page.userId} ${after}
    order by started_at desc, id desc
    limit ${page.limit}`;
}

/** The turns that one process of an engine got for a task, newest first. */
export async function listTaskTurns(
  raw: RawSql,
  task: Pick<TurnRow, "productId" | "userId" | "taskId" | "engineId" | "generation"> & { limit: number },
): Promise<TurnRow[]> {
  return raw<TurnRow[]>`
    select ${columns(raw)} from turns
    where product_id = ${task.productId} and user_id = ${task.userId} and task_id = ${task.taskId}
      and engine_id = ${task.engineId} and generation = ${task.generation}
    order by started_at desc, id desc
    limit ${task.limit}`;
}

// The owner may have shown readers every event up to `reserved_seq`, so the end comes after that. The fencing token
// grows, so that no later write of the owner succeeds.
const endAt = (raw: RawSql, lastSeq = raw`reserved_seq + 1`) => raw`
  fencing_token = fencing_token + 1, last_seq = ${lastSeq}, ended_at = orch_now()`;

/** Which replicas have lost their turns: all but `me`, or of `dead` those that are not `me`. */
export interface LostOwners {
  me: string;
  dead: readonly string[] | "all but me";
}

const liveTurnsOf = (raw: RawSql, { me, dead }: LostOwners) => raw`
  turns.status in ('starting', 'streaming') and turns.owner_replica <> ${me}
  and ${dead === "all but me" ? raw`true` : raw`turns.owner_replica = any(${[...dead]}::uuid[])`}`;

/**
 * Ends the turns of lost owners whose engines do not number their events, and returns how many. Nobody can read such a
 * turn on. `end` is the end as JSON text, without its lastSeq.
 */
export async function endUnnumberedTurns(
  raw: RawSql,
  owners: LostOwners,
  { status, end }: Pick<EndOfOther, "status" | "end">,
): Promise<number> {
  const result = await raw`
    update turns set ${endAt(raw)}, status = ${status},
      "end" = (${end}::text::jsonb || jsonb_build_object('lastSeq', reserved_seq + 1))::text
    where ${liveTurnsOf(raw, owners)} and last_seq > 0 and not exists (
      select from turn_events as log
      where log.product_id = turns.product_id and log.turn_id = turns.id and log.turn_started_at = turns.started_at
        and log.last_seq = turns.last_seq and log.engine_event_id is not null)`;
  return result.count;
}

/** Makes the live turns of lost owners ours, under new fencing tokens, and returns them. */
export async function takeOverTurnRows(raw: RawSql, owners: LostOwners): Promise<TurnRow[]> {
  return raw<TurnRow[]>`
    update turns set owner_replica = ${owners.me}, fencing_token = fencing_token + 1
    where ${liveTurnsOf(raw, owners)}
    returning ${columns(raw)}`;
}

/** What the next owner of a turn has to know besides the turn's row. */
export interface TurnRemains {
  /** The engine's id of the last event in the log; null: the log has no events, or their engine does not number them. */
  engineEventId: string | null;
  /** The size of the log's events. */
  logBytes: number;
  /** The newest row of the log; null: the log has no events. */
  lastChunk: StoredChunk | null;
  /** The engine as it is on record; null: it was destroyed. */
  engine: CallableEngine | null;
}

type LogRemains = StoredChunk & Omit<TurnRemains, "engine" | "lastChunk">;

/** Read it after `takeOverTurnRows`: only then does the log grow no more. */
export async function readTurnRemains(
  raw: RawSql,
  turn: Pick<TurnRow, "productId" | "turnId" | "startedAt" | "lastSeq" | "engineId">,
): Promise<TurnRemains> {
  const log = raw`turn_events where product_id = ${turn.productId} and turn_id = ${turn.turnId}
    and turn_started_at = ${turn.startedAt}::text::timestamptz`;
  const [row] = await raw<LogRemains[]>`
    select total.bytes as "logBytes", last.first_seq::float8 as "firstSeq", last.last_seq::float8 as "lastSeq",
      last.events, last.sealed, last.engine_event_id as "engineEventId"
    from (
      select coalesce(sum(coalesce(octet_length(events), octet_length(sealed))), 0)::float8 as bytes from ${log}
    ) as total
    left join (select * from ${log} and last_seq = ${turn.lastSeq}) as last on true`;
  const [engine] = await raw<CallableEngine[]>`
    select id, product_id as "productId", user_id as "userId", endpoint, endpoint_mac as "endpointMac",
      key_sealed as "keySealed"
    from engines where id = ${turn.engineId}`;
  return {
    engineEventId: row?.engineEventId ?? null,
    logBytes: row?.logBytes ?? 0,
    lastChunk: row?.firstSeq == null ? null : row,
    engine: engine ?? null,
  };
}

export interface EndOfOther {
  row: TurnKey & Pick<TurnRow, "ownerReplica" | "fencingToken">;
  status: TurnStatus;
  /** The end as JSON text, without its lastSeq. */
  end: string;
  /** The turn never reached its engine. No reader has an event of it, so its end gets the next sequence number. */
  isUnsent: boolean;
}

/** Ends a live turn of another owner. False: the turn has ended or has another owner by now. */
export async function endTurnOfOther(raw: RawSql, given: EndOfOther): Promise<boolean> {
  const { row, status, end, isUnsent } = given;
  const lastSeq = isUnsent ? raw`last_seq + 1` : raw`reserved_seq + 1`;
  const result = await raw`
    update turns set ${endAt(raw, lastSeq)}, status = ${status},
      "end" = (${end}::text::jsonb || jsonb_build_object('lastSeq', ${lastSeq}))::text
    where product_id = ${row.productId} and id = ${row.turnId} and status in ('starting', 'streaming')
      and owner_replica = ${row.ownerReplica} and fencing_token = ${row.fencingToken}`;
  return result.count > 0;
}

/** Deletes up to `limit` turns that ended more than `ageMs` ago, oldest first. Returns their number. */
export async function deleteOldTurns(raw: RawSql, ageMs: number, limit: number): Promise<number> {
  const result = await raw`
    delete from turns where (product_id, id) in (
      select product_id, id from turns
      where started_at < orch_now() - make_interval(secs => ${ageMs / 1000}::float8)
        and ended_at < orch_now() - make_interval(secs => ${ageMs / 1000}::float8)
      order by started_at limit ${limit})`;
  return result.count;
}
