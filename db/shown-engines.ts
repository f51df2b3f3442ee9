import { sql } from "drizzle-orm";
import type { Db } from "./client.ts";
import type { EngineRow, EngineUser } from "./engines.ts";
import { toStatement } from "./prepared-statement.ts";

/** The columns of an engine that callers see. Reading only these saves a third of the time that the whole row takes. */
export type ShownEngine = Pick<
  EngineRow,
  | "id"
  | "userId"
  | "status"
  | "statusReason"
  | "desired"
  | "generation"
  | "spec"
  | "endpoint"
  | "keyPrefix"
  | "bootMs"
  | "restarts"
  | "nextRestartAt"
  | "createdAt"
  | "updatedAt"
  | "lastHealthAt"
  | "lastActivityAt"
>;

/** With the position of its user among those that were asked for. */
export type FoundEngine = ShownEngine & { index: number };

const columns = sql`id, user_id as "userId", status, status_reason as "statusReason", desired, generation, spec, endpoint,
  key_prefix as "keyPrefix", boot_ms as "bootMs", restarts, next_restart_at as "nextRestartAt",
  created_at as "createdAt", updated_at as "updatedAt", last_health_at as "lastHealthAt",
  last_activity_at as "lastActivityAt"`;

/**
 * A query for the engines of the users in the placeholder `wanted`, see `toWanted`. `limit` keeps Postgres on the index:
 * it plans for 100 users, for which it may prefer to read the whole table.
 */
export const SHOWN_ENGINES = sql`
  select wanted.index, engine.*
  from json_to_recordset(${sql.placeholder("wanted")}::json) as wanted(index int, "productId" uuid, "userId" text)
  cross join lateral (
    select ${columns} from engines where product_id = wanted."productId" and user_id = wanted."userId" limit 1
  ) as engine`;

const findOne = toStatement<EngineUser, ShownEngine>(
  "find_shown_engine",
  sql`select ${columns} from engines
    where product_id = ${sql.placeholder("productId")} and user_id = ${sql.placeholder("userId")}`,
);
const findSeveral = toStatement<{ wanted: string }, FoundEngine>("find_shown_engines", SHOWN_ENGINES);

/** The text for the placeholder `wanted`. */
export function toWanted(users: readonly (EngineUser & { index: number })[]): string {
  return JSON.stringify(users.map(({ index, productId, userId }) => ({ index, productId, userId })));
}

/** One result for each user, in the same order. */
export async function findShownEngines(
  db: Db,
  users: readonly EngineUser[],
): Promise<(ShownEngine | undefined)[]> {
  const [only] = users;
  if (only !== undefined && users.length === 1) {
    const { productId, userId } = only;
    const [row] = await findOne(db, { productId, userId });
    return [row];
  }
  const wanted = toWanted(users.map((user, index) => ({ ...user, index })));
  return placeEngines(users.length, await findSeveral(db, { wanted }));
}

/** Puts each engine at the position of its user. */
export function placeEngines(count: number, rows: readonly FoundEngine[]): (ShownEngine | undefined)[] {
  const found = Array.from<ShownEngine | undefined>({ length: count });
  for (const row of rows) found[row.index] = row;
  return found;
}
