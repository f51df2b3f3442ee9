import type postgres from "postgres";

const TABLE_RIGHTS = ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"] as const;
type TableRight = (typeof TABLE_RIGHTS)[number];

/** What the role of the service may do with most tables. */
const COMMON_RIGHTS: readonly TableRight[] = ["SELECT", "INSERT", "UPDATE", "DELETE"];

/** The tables of which it may do less. Functions of the schema's owner append and remove rows of the audit log. */
const FEWER_RIGHTS: Readonly<Record<string, readonly TableRight[]>> = {
  audit_log: ["SELECT"],
  audit_heads: ["SELECT"],
  audit_anchors: ["SELECT", "INSERT", "UPDATE"],
  audit_retention: ["SELECT"],
};

const AUDIT_PARTITION = /^audit_log_\d+$/;

/** Functions that run with the rights of the schema's owner, and are closed to everybody else. */
export const SERVICE_FUNCTIONS = [
  "append_audit",
  "ensure_audit_partition",
  "ensure_turn_partition",
  "drop_turn_partition",
  "destroy_data_keys",
  "retire_audit",
] as const;

type Sql = postgres.Sql | postgres.TransactionSql;

export interface ServiceRights {
  /** Rights that the service needs and the role does not have, such as `UPDATE on engines`. */
  missing: string[];
  /** Rights that the role has, and with which it could change the audit log. The service does not need them. */
  excess: string[];
}

interface Held {
  table: string;
  rights: TableRight[];
}

/** Compares what the role may do with what the service needs. Partitions need no rights of their own, and may have none that change the audit log. */
export async function findServiceRights(sql: Sql, role: string): Promise<ServiceRights> {
  const tables = await sql<Held[]>`
    select relname as table, array(
        select r from unnest(${[...TABLE_RIGHTS]}::text[]) r where has_table_privilege(${role}, pg_class.oid, r)
      ) as rights
    from pg_class
    where relnamespace = current_schema()::regnamespace and relkind in ('r', 'p')
      and (relname ~ '^audit_log_[0-9]+$' or (not relispartition and relname !~ '_[0-9]+$'))
    order by relname`;
  const closed = await sql<{ name: string }[]>`
    select proname as name from pg_proc
    where pronamespace = current_schema()::regnamespace and proname = any(${[...SERVICE_FUNCTIONS]}::text[])
      and not has_function_privilege(${role}, oid, 'EXECUTE')
    order by proname`;
  const [schema] = await sql<{ name: string; usable: boolean; open: boolean; readable: boolean }[]>`
    select current_schema() as name, has_schema_privilege(${role}, current_schema(), 'USAGE') as usable,
      has_schema_privilege(${role}, current_schema(), 'CREATE') as open,
      has_schema_privilege(${role}, 'drizzle', 'USAGE')
        and has_table_privilege(${role}, 'drizzle.__drizzle_migrations', 'SELECT') as readable`;
  const missing = tables
    .filter(({ table }) => !AUDIT_PARTITION.test(table))
    .flatMap(({ table, rights }) =>
      toNeeded(table)
        .filter((right) => !rights.includes(right))
        .map((right) => `${right} on ${table}`),
    );
  if (schema?.usable !== true) missing.push("USAGE on the schema");
  if (schema?.readable !== true) missing.push("SELECT on drizzle.__drizzle_migrations");
  const excess = tables.flatMap(({ table, rights }) => {
    const allowed = FEWER_RIGHTS[table.replace(AUDIT_PARTITION, "audit_log")] ?? TABLE_RIGHTS;
    return rights.filter((right) => !allowed.includes(right)).map((right) => `${right} on ${table}`);
  });
  // A function of the role could stand in for one that the owner's functions call.
  if (schema?.open === true) excess.push(`CREATE on the schema ${schema.name}`);
  return { missing: [...missing, ...closed.map(({ name }) => `EXECUTE on ${name}`)], excess };
}

function toNeeded(table: string): readonly TableRight[] {
  return FEWER_RIGHTS[table] ?? COMMON_RIGHTS;
}

/** The statements that give the role exactly what the service needs, for a schema that is up to date. */
export async function listGrants(sql: Sql, role: string): Promise<string[]> {
  const [names] = await sql<{ schema: string; role: string }[]>`
    select quote_ident(current_schema()) as schema, quote_ident(${role}) as role`;
  const tables = await sql<{ table: string }[]>`
    select relname as table from pg_class
    where relnamespace = current_schema()::regnamespace and relkind in ('r', 'p') and not relispartition
      and relname !~ '_[0-9]+$'
    order by relname`;
  const functions = await sql<{ signature: string }[]>`
    select oid::regprocedure::text as signature from pg_proc
    where pronamespace = current_schema()::regnamespace and proname = any(${[...SERVICE_FUNCTIONS]}::text[])
    order by 1`;
  if (names === undefined) throw new Error("the query of the names returned no row");
  const { schema, role: to } = names;
  return [
    `grant usage on schema ${schema}, drizzle to ${to}`,
    `grant select on drizzle.__drizzle_migrations to ${to}`,
    // Before Postgres 15, everybody has CREATE on the schema `public`.
    `revoke create on schema ${schema} from public, ${to}`,
    `revoke all on all tables in schema ${schema} from ${to}`,
    ...tables.map(
      ({ table }) => `grant ${toNeeded(table).join(", ").toLowerCase()} on ${schema}.${table} to ${to}`,
    ),
    ...functions.map(({ signature }) => `grant execute on function ${signature} to ${to}`),
  ];
}
