import { and, asc, count, eq, getTableColumns, gt, inArray, ne, sql, type SQL } from "drizzle-orm";
import { orchNow } from "./orch-now.ts";
import type { Db } from "./client.ts";
import { findViolatedConstraint } from "./postgres-error.ts";
import { preparedPerPool } from "./prepared-statement.ts";
import { engines, replicas } from "./schema.ts";

/*
 * Statements on hot paths are prepared: from the second call on they take one round trip instead of two. postgres.js
 * finds a prepared statement by its text, so a query that is built anew for each call is still prepared only once.
 */

export type EngineRow = typeof engines.$inferSelect;
/** The columns that a call to the engine needs. */
export type UsableEngine = Pick<
  EngineRow,
  | "id"
  | "productId"
  | "userId"
  | "status"
  | "statusReason"
  | "desired"
  | "generation"
  | "endpoint"
  | "endpointMac"
  | "keySealed"
  | "nextRestartAt"
>;
/** What is needed to call an engine: its address and its key, and what proves that they belong to the engine. */
export type CallableEngine = Pick<
  UsableEngine,
  "id" | "productId" | "userId" | "endpoint" | "endpointMac" | "keySealed"
>;
export type NewEngine = Omit<
  typeof engines.$inferInsert,
  "createdAt" | "updatedAt" | "nextCheckAt" | "hostPort" | "bootStartedAt"
>;
/** Names an engine: a user of a product has at most one. */
export type EngineUser = Pick<EngineRow, "productId" | "userId">;
/** The columns that a MAC covers: their values have to be known outside of the database. */
type ProvenColumn =
  | "id"
  | "productId"
  | "userId"
  | "spec"
  | "volumeName"
  | "runtimeHost"
  | "keyHash"
  | "nextKeyHash"
  | "endpoint";
/** Columns to write; SQL for values that the database computes. */
export type EnginePatch = Partial<
  Pick<EngineRow, ProvenColumn> & {
    [Column in Exclude<keyof EngineRow, ProvenColumn>]: (typeof engines.$inferInsert)[Column] | SQL;
  }
>;

const nowColumn = { now: sql<string>`orch_now()`.as("now") };
/** A row, and the time of the database's clock when the row was read. */
export type EngineRowAt = EngineRow & { now: string };

const columns = getTableColumns(engines);

/** `ms` milliseconds from now, by the database's clock. */
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

/** Prepared on the pool: every call reads its engine. */
export async function findEngine(db: Db, user: EngineUser): Promise<EngineRow | undefined> {
  const [row] = await findByUser(db).execute(user);
  return row;
}

const findByUsers = preparedPerPool((db) => {
  // `limit` keeps Postgres on the index: it plans for 100 users, for which it may prefer to read the whole table.
  const engine = db
    .select()
    .from(engines)
    .where(sql`${engines.productId} = wanted."productId" and ${engines.userId} = wanted."userId"`)
    .limit(1)
    .as("engine");
  return db
    .select({ index: sql<number>`wanted.index`, engine: engine._.selectedFields })
    .from(
      sql`json_to_recordset(${sql.placeholder("wanted")}::json) as wanted(index int, "productId" uuid, "userId" text)`,
    )
    .innerJoinLateral(engine, sql`true`)
    .prepare("find_engines");
});

/** One result for each user, in the same order. */
export async function findEngines(db: Db, users: readonly EngineUser[]): Promise<(EngineRow | undefined)[]> {
  const [only] = users;
  if (only !== undefined && users.length === 1) return [await findEngine(db, only)];
  const wanted = users.map(({ productId, userId }, index) => ({ index, productId, userId }));
  const found = Array.from<EngineRow | undefined>({ length: users.length });
  for (const { index, engine } of await findByUsers(db).execute({ wanted: JSON.stringify(wanted) })) {
    found[index] = engine;
  }
  return found;
}

/** Locks the row against other operations until the transaction ends. */
export async function lockEngine(tx: Db, user: EngineUser): Promise<EngineRow | undefined> {
  const [row] = await tx
    .select()
    .from(engines)
    .where(and(eq(engines.productId, user.productId), eq(engines.userId, user.userId)))
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

/** Prepared on the pool: reconcile reads the row before each step. */
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

/** In order of creation, because the ids are UUIDs of version 7. */
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

/** Counts the engines of a product in any status, but no further than `max`. */
export async function countEnginesUpTo(
  tx: Db,
  { productId, max }: { productId: string; max: number },
): Promise<number> {
  const some = tx
    .select({ one: sql`1`.as("one") })
    .from(engines)
    .where(eq(engines.productId, productId))
    .limit(max)
    .as("some");
  const [row] = await tx.select({ count: count() }).from(some).prepare("count_engines_up_to").execute();
  return row?.count ?? 0;
}

/** With `ports`, reserves a free host port as `reservePort` does; the port is null when none is free. */
export async function insertEngine(
  tx: Db,
  engine: NewEngine,
  ports?: PortRange,
): Promise<EngineRow | undefined> {
  for (;;) {
    const row = await tryInsertEngine(tx, engine, ports);
    // No row: another transaction has just taken the same port. It is not free any more, so the tries end.
    if (row !== undefined || ports === undefined) return row;
  }
}

async function tryInsertEngine(tx: Db, engine: NewEngine, ports?: PortRange): Promise<EngineRow | undefined> {
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
    .onConflictDoNothing({ target: [engines.runtimeHost, engines.hostPort] })
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
  /** A newer lease has a higher token. */
  fencingToken?: number | undefined;
  /** Give it whenever the patch has a new MAC, because that covers the other columns as they were read. */
  mac?: string | null | undefined;
}

/** Writes only if the condition still holds; undefined: another writer won. */
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
        condition.mac === undefined ? undefined : sql`${engines.mac} is not distinct from ${condition.mac}`,
      ),
    )
    .returning({ ...columns, ...nowColumn })
    .prepare("update_engine_if")
    .execute();
  return row;
}

/** An engine that ran this long without a restart gets its whole restart budget back. */
export const RESTART_WINDOW_MS = 600_000;

export type EngineLease = Pick<EngineRow, "id" | "fencingToken">;

/** Records a healthy probe and releases the lease. Callers see no change, so `updated_at` stays. */
export async function recordHealthy(db: Db, lease: EngineLease, nextCheckMs: number): Promise<void> {
  await db
    .update(engines)
    .set({
      lastHealthAt: orchNow,
      healthFailures: 0,
      nextCheckAt: afterMs(nextCheckMs),
      leaseReplica: null,
      restartAttempts: sql`case when ${engines.bootStartedAt} < ${afterMs(-RESTART_WINDOW_MS)} then 0
        else ${engines.restartAttempts} end`,
    })
    .where(and(eq(engines.id, lease.id), eq(engines.fencingToken, lease.fencingToken)))
    .prepare("record_healthy")
    .execute();
}

/** False: another writer won, or the engine is not in `destroying`. */
export async function deleteEngine(tx: Db, { id, fencingToken }: EngineLease): Promise<boolean> {
  const rows = await tx
    .delete(engines)
    .where(and(eq(engines.id, id), eq(engines.fencingToken, fencingToken), eq(engines.status, "destroying")))
    .returning({ id: engines.id });
  return rows.length > 0;
}

/**
 * Takes the lease to reconcile an engine, with a new fencing token. undefined: the engine is gone, or another replica
 * that lives holds the lease.
 */
export async function takeEngineLease(
  db: Db,
  request: { id: string; replicaId: string; leaseMs: number },
): Promise<EngineRowAt | undefined> {
  const [row] = await db
    .update(engines)
    .set({ leaseReplica: request.replicaId, fencingToken: sql`${engines.fencingToken} + 1` })
    .where(
      and(
        eq(engines.id, request.id),
        sql`(${engines.leaseReplica} is null or ${engines.leaseReplica} = ${request.replicaId} or not exists (
          select from ${replicas} where ${replicas.id} = ${engines.leaseReplica}
          and ${replicas.heartbeatAt} > orch_now() - make_interval(secs => ${request.leaseMs / 1000}::float8)))`,
      ),
    )
    .returning({ ...columns, ...nowColumn })
    .prepare("take_engine_lease")
    .execute();
  return row;
}

/** Returns engines that are due, and moves their next check by `holdMs`, so that no other replica takes them. */
export async function takeDueEngines(
  db: Db,
  request: { runtimeHost: string; limit: number; holdMs: number },
): Promise<string[]> {
  const due = db
    .select({ id: engines.id })
    .from(engines)
    .where(and(eq(engines.runtimeHost, request.runtimeHost), sql`${engines.nextCheckAt} <= orch_now()`))
    .orderBy(asc(engines.nextCheckAt))
    .limit(request.limit)
    .for("update", { skipLocked: true });
  const rows = await db
    .update(engines)
    .set({ nextCheckAt: afterMs(request.holdMs) })
    .where(inArray(engines.id, due))
    .returning({ id: engines.id })
    .prepare("take_due_engines")
    .execute();
  return rows.map((row) => row.id);
}

export interface PortRange {
  min: number;
  max: number;
  /** Ports that other programs on the machine hold. */
  except: readonly number[];
}
export type PortReservation = PortRange & Pick<EngineRow, "id" | "runtimeHost">;

function freePort(runtimeHost: string, { min, max, except }: PortRange): SQL {
  return sql`(select port from generate_series(${min}::int, ${max}::int) as port
    where port <> all(${sql.param([...except])}::int[]) and not exists (
      select from ${engines} as taken where taken.runtime_host = ${runtimeHost} and taken.host_port = port)
    order by random() limit 1)`;
}

/**
 * Reserves a free host port for the engine; undefined: no port of the range is free. Ports are chosen at random, because
 * with the lowest first all callers would compete for one port. The unique index decides: after a lost race, another
 * port is tried.
 */
export async function reservePort(db: Db, reservation: PortReservation): Promise<number | undefined> {
  for (;;) {
    try {
      // Within a transaction this is a savepoint: the violation undoes only the try.
      return await db.transaction(async (tx) => tryReservePort(tx, reservation));
    } catch (error) {
      if (findViolatedConstraint(error) !== "engines_host_port_key") throw error;
    }
  }
}

async function tryReservePort(db: Db, reservation: PortReservation): Promise<number | undefined> {
  const [row] = await db
    .update(engines)
    .set({ hostPort: freePort(reservation.runtimeHost, reservation) })
    .where(eq(engines.id, reservation.id))
    .returning({ hostPort: engines.hostPort })
    .prepare("reserve_port")
    .execute();
  return row?.hostPort ?? undefined;
}

/** Writes the last use of many engines, by engine id, in one statement. An instant never moves back. */
export async function recordActivity(db: Db, activity: ReadonlyMap<string, string>): Promise<void> {
  if (activity.size === 0) return;
  // As text, because Drizzle gives postgres.js a serializer that passes arrays of instants through unchanged.
  await db.execute(sql`update ${engines} set last_activity_at = greatest(last_activity_at, seen.at::timestamptz)
    from unnest(${sql.param([...activity.keys()])}::uuid[], ${sql.param([...activity.values()])}::text[])
      as seen(id, at) where ${engines.id} = seen.id`);
}

/** The volume of each engine on that runtime host, and whether the engine has ever been ready. */
export async function listVolumesToKeep(
  db: Db,
  runtimeHost: string,
): Promise<{ volumeName: string; wasReady: boolean }[]> {
  return db
    .select({ volumeName: engines.volumeName, wasReady: sql<boolean>`${engines.firstReadyAt} is not null` })
    .from(engines)
    .where(and(eq(engines.runtimeHost, runtimeHost), ne(engines.desired, "destroyed")));
}

/** At a start: makes every engine due, so that a resync finishes what the process before left unfinished. */
export async function markAllDue(db: Db, runtimeHost: string): Promise<void> {
  await db.update(engines).set({ nextCheckAt: orchNow }).where(eq(engines.runtimeHost, runtimeHost));
}
