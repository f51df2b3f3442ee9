import { sql, type SQL } from "drizzle-orm";
import type { Db } from "./client.ts";
import { toStatement } from "./prepared-statement.ts";
import type { RATE_KINDS } from "./limit-tables.ts";
import {
  placeEngines,
  SHOWN_ENGINES,
  toWanted,
  type FoundEngine,
  type ShownEngine,
} from "./shown-engines.ts";

export type RateKind = (typeof RATE_KINDS)[number];

/** One call of a product. */
export interface CallToCount {
  startsTurn: boolean;
  /** Read the engine of this user, too. */
  engineOf?: string | undefined;
}

/** The present window of one limit, after the calls were counted. */
export interface CountedWindow {
  limit: number;
  /** How many of the calls the limit lets through: the first ones. */
  taken: number;
  /** Calls in the window so far, with these. */
  used: number;
  leftMs: number;
}

/** undefined: the product has no such limit, or no call needed it. */
export type CountedWindows = Record<RateKind, CountedWindow | undefined>;

export interface CountedCalls {
  windows: CountedWindows;
  /** One for each call; undefined: the call asked for no engine, or the user has none. */
  engines: readonly (ShownEngine | undefined)[];
}

type CountValues = { productId: string; calls: number; turnStarts: string };
type CountedRow = {
  [Column in `${RateKind}${"Limit" | "Taken" | "Used" | "LeftMs"}`]: number | null;
};
/** If no engine was found, the engine's columns are null. */
type AdmittedRow = CountedRow & (FoundEngine | { index: null });

const WINDOW = sql`interval '60 seconds'`;

// A statement that waited for the row has an older time than a window that another one began during that wait. It belongs
// to that window. A window that lies further in the future is from before the clock was set back.
const isPresent = sql`window_.started_at > excluded.started_at - ${WINDOW} and window_.started_at < excluded.started_at + ${WINDOW}`;
const left = sql`greatest(0, excluded."limit" - window_.used)`;

/** Lets through as many of the calls as the limit allows, in the present window or in a new one that begins now. */
const toCount = (kind: RateKind, { limit, calls, from }: { limit: SQL; calls: SQL; from: SQL }) => sql`
  insert into rate_windows as window_ (product_id, kind, started_at, "limit", used, taken)
  select ${sql.placeholder("productId")}::uuid, ${sql.raw(`'${kind}'`)}, orch_now(), ${limit}, least(${calls}, ${limit}),
    least(${calls}, ${limit})
  from ${from} where ${limit} is not null and ${calls} > 0
  on conflict (product_id, kind) do update set
    "limit" = excluded."limit",
    started_at = case when ${isPresent} then window_.started_at else excluded.started_at end,
    used = case when ${isPresent} then window_.used + least(excluded.taken, ${left}) else excluded.taken end,
    taken = case when ${isPresent} then least(excluded.taken, ${left}) else excluded.taken end
  returning "limit", taken, used,
    extract(epoch from started_at + ${WINDOW} - orch_now())::float8 * 1000 as left_ms`;

// The policy is read here, so a change of a limit is in force at the next call. The commit does not wait for the disk:
// a crash of Postgres forgets the counts of its last moments, and nothing else is written here.
const toCounting = (columns: SQL, join: SQL) => sql`
  with policy as (
    select (policy->>'rateLimitRpm')::int as requests, (policy->>'turnLimitRpm')::int as turns
    from products where id = ${sql.placeholder("productId")}::uuid
  ), given as (
    select ${sql.placeholder("calls")}::int as calls
  ), requests as (${toCount("requests", { limit: sql`policy.requests`, calls: sql`given.calls`, from: sql`policy, given` })}
  ), starts as (
    select count(*)::int as calls from given, unnest(${sql.placeholder("turnStarts")}::text::int[]) as position
    where position <= coalesce((select taken from requests), given.calls)
  ), turns as (${toCount("turns", { limit: sql`policy.turns`, calls: sql`starts.calls`, from: sql`policy, starts` })}
  )
  select requests."limit" as "requestsLimit", requests.taken as "requestsTaken", requests.used as "requestsUsed",
    requests.left_ms as "requestsLeftMs", turns."limit" as "turnsLimit", turns.taken as "turnsTaken",
    turns.used as "turnsUsed", turns.left_ms as "turnsLeftMs", set_config('synchronous_commit', 'off', true) ${columns}
  from given left join requests on true left join turns on true ${join}`;

const countOnly = toStatement<CountValues, CountedRow>("count_calls", toCounting(sql``, sql``));
const countAndFind = toStatement<CountValues & { wanted: string }, AdmittedRow>(
  "admit_calls",
  toCounting(sql`, engine.*`, sql`left join (${SHOWN_ENGINES}) as engine on true`),
);

/**
 * Counts calls of one product against the limits of its policy, in this order. A call that a limit refuses is not counted
 * by that limit. In the same statement, reads the engines that the calls ask for.
 */
export async function countCalls(
  db: Db,
  productId: string,
  calls: readonly CallToCount[],
): Promise<CountedCalls> {
  const starts = calls.flatMap(({ startsTurn }, index) => (startsTurn ? [index + 1] : []));
  const values = { productId, calls: calls.length, turnStarts: `{${starts.join(",")}}` };
  const users = calls.flatMap(({ engineOf }, index) =>
    engineOf === undefined ? [] : [{ index, productId, userId: engineOf }],
  );
  const rows: readonly (CountedRow | AdmittedRow)[] =
    users.length === 0
      ? await countOnly(db, values)
      : await countAndFind(db, { ...values, wanted: toWanted(users) });
  const [first] = rows;
  if (first === undefined) throw new Error(`the count of ${calls.length} calls returned no row`);
  const found = rows.filter((row) => "index" in row && row.index !== null);
  return { windows: toWindows(first), engines: placeEngines(calls.length, found) };
}

function toWindows(row: CountedRow): CountedWindows {
  const find = (kind: RateKind): CountedWindow | undefined => {
    const limit = row[`${kind}Limit`];
    const taken = row[`${kind}Taken`];
    const used = row[`${kind}Used`];
    const leftMs = row[`${kind}LeftMs`];
    if (limit === null || taken === null || used === null || leftMs === null) return undefined;
    return { limit, taken, used, leftMs };
  };
  return { requests: find("requests"), turns: find("turns") };
}

/** Deletes windows that ended long ago. Returns how many there were. */
export async function removeOldRateWindows(db: Db): Promise<number> {
  const rows = await db.execute(
    sql`delete from rate_windows where started_at < orch_now() - interval '1 hour' returning kind`,
  );
  return rows.length;
}
