import { and, asc, count, eq, getTableColumns, gt, inArray, sql, type SQL } from "drizzle-orm";
import type { Db } from "./client.ts";
import { preparedPerPool } from "./prepared-statement.ts";
import { engines, replicas } from "./schema.ts";

/*
 * Statements on hot paths are prepared: from the second time on they take one round trip on a connection instead of
 * two. postgres.js knows them by their text, so one that is built anew each time is prepared once all the same.
 */

export type EngineRow = typeof engines.$inferSelect;
/** As much of an engine as using it takes. */
export type UsableEngine = Pick<
  EngineRow,
  "id" | "status" | "statusReason" | "desired" | "generation" | "hostPort" | "keySealed" | "nextRestartAt"
>;
export type NewEngine = Omit<
  typeof engines.$inferInsert,
  "createdAt" | "updatedAt" | "nextCheckAt" | "hostPort" | "bootStartedAt"
>;
/** Columns to write; SQL where the database's clock decides. */
export type EnginePatch = Partial<{
  [Column in keyof typeof engines.$inferInsert]: (typeof engines.$inferInsert)[Column] | SQL;
}>;

const nowColumn = { now: sql<string>`orch_now()`.as("now") };
/** A row and the database's instant at which it was read. */
export type EngineRowAt = EngineRow & { now: string };

const columns = getTableColumns(engines);

export const orchNow = sql`orch_now()`;
/** The database's now and some milliseconds. */
export function afterMs(ms: number): SQL {
  return sql`orch_now() + make_interval(secs => ${ms / 1000}::float8)`;
}

const findByUser = preparedPerPool((db) =>
  db
    .select()
    .from(engines)
    .where(
      and(eq(engines.productId, sql.placeholder("productId")), eq(engines.userId, sql.placeholder("userId"))),
    )
    .prepare("find_engine"),
);

/** The product's engine of that user. Prepared on the pool: it is on every call's path. */
export async function findEngine(
  db: Db,
  key: { productId: string; userId: string },
): Promise<EngineRow | undefined> {
  const [row] = await findByUser(db).execute(key);
  return row;
}

/** The same in a transaction, locked against other verbs until its end. */
export async function lockEngine(
  tx: Db,
  key: { productId: string; userId: string },
): Promise<EngineRow | undefined> {
  const [row] = await tx
    .select()
    .from(engines)
    .where(and(eq(engines.productId, key.productId), eq(engines.userId, key.userId)))
    .for("update")
    .prepare("lock_engine")
    .execute();
  return row;
}

const findById = preparedPerPool((db) =>
  db
    .select({ ...columns, ...nowColumn })
    .from(engines)
    .where(eq(engines.id, sql.placeholder("id")))
    .prepare("find_engine_by_id"),
);

/** Prepared on the pool: the control loop reads the row before each step. */
export async function findEngineById(db: Db, id: string): Promise<EngineRowAt | undefined> {
  const [row] = await findById(db).execute({ id });
  return row;
}

export interface EnginePage {
  productId: string;
  status?: EngineRow["status"] | undefined;
  /** Ids greater than this one. */
  afterId?: string | undefined;
  limit: number;
}

/** In order of creation: ids are version 7. */
export async function listEngineRows(db: Db, page: EnginePage): Promise<EngineRow[]> {
  return db
    .select()
    .from(engines)
    .where(
      and(
        eq(engines.productId, page.productId),
        page.status === undefined ? undefined : eq(engines.status, page.status),
        page.afterId === undefined ? undefined : gt(engines.id, page.afterId),
      ),
    )
    .orderBy(asc(engines.id))
    .limit(page.limit);
}

export async function countEngines(db: Db, productId: string): Promise<number> {
  const [row] = await db.select({ count: count() }).from(engines).where(eq(engines.productId, productId));
  return row?.count ?? 0;
}

/** With `ports`, a free one is the engine's at once, as by `reservePort`; null where there is none. */
export async function insertEngine(
  tx: Db,
  engine: NewEngine,
  ports?: PortRange,
): Promise<EngineRow | undefined> {
  const [row] = await tx
    .insert(engines)
    .values({
      ...engine,
      hostPort: ports === undefined ? null : freePort(engine.runtimeHost, ports),
      createdAt: orchNow,
      updatedAt: orchNow,
      nextCheckAt: orchNow,
      bootStartedAt: orchNow,
    })
    .returning()
    .prepare("insert_engine")
    .execute();
  return row;
}

export interface EngineCondition {
  id: string;
  statusIn?: readonly EngineRow["status"][];
  desired?: EngineRow["desired"];
  incarnation?: number;
  /** The driver's fence: a newer driver has a higher one. */
  fencingToken?: number;
}

/** Writes only where the condition still holds; undefined means the race was lost. */
export async function updateEngineIf(
  db: Db,
  condition: EngineCondition,
  patch: EnginePatch,
): Promise<EngineRowAt | undefined> {
  const [row] = await db
    .update(engines)
    .set({ ...patch, updatedAt: orchNow })
    .where(
      and(
        eq(engines.id, condition.id),
        condition.statusIn === undefined ? undefined : inArray(engines.status, [...condition.statusIn]),
        condition.desired === undefined ? undefined : eq(engines.desired, condition.desired),
        condition.incarnation === undefined ? undefined : eq(engines.incarnation, condition.incarnation),
        condition.fencingToken === undefined ? undefined : eq(engines.fencingToken, condition.fencingToken),
      ),
    )
    .returning({ ...columns, ...nowColumn })
    .prepare("update_engine_if")
    .execute();
  return row;
}

/** An engine that ran this long without a restart starts with a fresh budget of restarts. */
export const RESTART_WINDOW_MS = 600_000;

/** A healthy probe changes nothing that callers wait for: no `updated_at`, no returning. */
export async function recordHealthy(db: Db, id: string, nextCheckMs: number): Promise<void> {
  await db
    .update(engines)
    .set({
      lastHealthAt: orchNow,
      healthFailures: 0,
      nextCheckAt: afterMs(nextCheckMs),
      restartAttempts: sql`case when ${engines.bootStartedAt} < ${afterMs(-RESTART_WINDOW_MS)} then 0
        else ${engines.restartAttempts} end`,
    })
    .where(eq(engines.id, id))
    .prepare("record_healthy")
    .execute();
}

export async function deleteEngine(
  tx: Db,
  condition: { id: string; fencingToken: number },
): Promise<boolean> {
  const rows = await tx
    .delete(engines)
    .where(
      and(
        eq(engines.id, condition.id),
        eq(engines.fencingToken, condition.fencingToken),
        eq(engines.status, "destroying"),
      ),
    )
    .returning({ id: engines.id });
  return rows.length > 0;
}

/** Becomes the driver unless a living replica is; each claim moves the fence. */
export async function takeEngineLease(
  db: Db,
  claim: { id: string; replicaId: string; leaseMs: number },
): Promise<EngineRowAt | undefined> {
  const [row] = await db
    .update(engines)
    .set({ leaseReplica: claim.replicaId, fencingToken: sql`${engines.fencingToken} + 1` })
    .where(
      and(
        eq(engines.id, claim.id),
        sql`(${engines.leaseReplica} is null or ${engines.leaseReplica} = ${claim.replicaId} or not exists (
          select from ${replicas} where ${replicas.id} = ${engines.leaseReplica}
          and ${replicas.heartbeatAt} > orch_now() - make_interval(secs => ${claim.leaseMs / 1000}::float8)))`,
      ),
    )
    .returning({ ...columns, ...nowColumn })
    .prepare("claim_driver")
    .execute();
  return row;
}

/** Takes rows that are due, at most `limit`, and pushes their next check by `holdMs` so that nobody else does. */
export async function takeDueEngines(
  db: Db,
  claim: { runtimeHost: string; limit: number; holdMs: number },
): Promise<string[]> {
  const due = db
    .select({ id: engines.id })
    .from(engines)
    .where(and(eq(engines.runtimeHost, claim.runtimeHost), sql`${engines.nextCheckAt} <= orch_now()`))
    .orderBy(asc(engines.nextCheckAt))
    .limit(claim.limit)
    .for("update", { skipLocked: true });
  const rows = await db
    .update(engines)
    .set({ nextCheckAt: afterMs(claim.holdMs) })
    .where(inArray(engines.id, due))
    .returning({ id: engines.id })
    .prepare("claim_due_engines")
    .execute();
  return rows.map((row) => row.id);
}

export interface PortRange {
  min: number;
  max: number;
  /** Ports that something else on the machine was seen to hold. */
  except: readonly number[];
}

export interface PortReservation extends PortRange {
  id: string;
  runtimeHost: string;
}

function freePort(runtimeHost: string, { min, max, except }: PortRange): SQL {
  return sql`(select port from generate_series(${min}::int, ${max}::int) as port
    where port <> all(${sql.param([...except])}::int[]) and not exists (
      select from ${engines} as taken where taken.runtime_host = ${runtimeHost} and taken.host_port = port)
    order by random() limit 1)`;
}

/**
 * Gives the engine a free port of the range; undefined when there is none. Ports are picked at random: lowest
 * first makes every claimant fight for the same one. The unique index is the guarantee, so a lost race throws
 * a violation of engines_host_port_key and the caller tries again in a new transaction.
 */
export async function reservePort(db: Db, claim: PortReservation): Promise<number | undefined> {
  const [row] = await db
    .update(engines)
    .set({ hostPort: freePort(claim.runtimeHost, claim) })
    .where(eq(engines.id, claim.id))
    .returning({ hostPort: engines.hostPort })
    .prepare("claim_port")
    .execute();
  return row?.hostPort ?? undefined;
}

/** Calls seen since the last flush, in one statement. */
export async function recordActivity(db: Db, activity: ReadonlyMap<string, string>): Promise<void> {
  if (activity.size === 0) return;
  // As text: Drizzle gives postgres.js a serializer for arrays of instants that passes them through as they are.
  await db.execute(sql`update ${engines} set last_activity_at = greatest(last_activity_at, seen.at::timestamptz)
    from unnest(${sql.param([...activity.keys()])}::uuid[], ${sql.param([...activity.values()])}::text[])
      as seen(id, at) where ${engines.id} = seen.id`);
}

/** After a start: every engine is looked at, and what a process before this one left unfinished is finished. */
export async function markAllDue(db: Db, runtimeHost: string): Promise<void> {
  await db.update(engines).set({ nextCheckAt: orchNow }).where(eq(engines.runtimeHost, runtimeHost));
}
