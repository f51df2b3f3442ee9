import postgres from "postgres";

/** The Postgres error in a chain of causes. Drizzle wraps it as `cause`. */
export function findPostgresError(error: unknown): postgres.PostgresError | undefined {
  return toChain(error).find((link) => link instanceof postgres.PostgresError);
}

function toChain(error: unknown): Error[] {
  return error instanceof Error ? [error, ...toChain(error.cause)] : [];
}

/** The constraint that a statement violated. undefined: it failed for another reason. */
export function findViolatedConstraint(error: unknown): string | undefined {
  return findPostgresError(error)?.constraint_name;
}

const UNAVAILABLE_CODES = new Set([
  "CONNECT_TIMEOUT",
  "CONNECTION_CLOSED",
  "CONNECTION_DESTROYED",
  "CONNECTION_ENDED",
  "ECONNREFUSED",
  "ECONNRESET",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ENOTFOUND",
  "ETIMEDOUT",
  "EPIPE",
  "ENOENT",
  "57P01",
  "57P02",
  "57P03",
  // Postgres has no connections, disk, memory or other resources left, or a disk fails.
  "53000",
  "53100",
  "53200",
  "53300",
  "58030",
  // Our time limit for a statement, a lock or an idle transaction has passed.
  "57014",
  "55P03",
  "25P03",
]);

/** Whether the database could not be reached, or stopped serving during the statement. */
export function isDatabaseUnavailable(error: unknown): boolean {
  return toChain(error).some(
    (link) => "code" in link && typeof link.code === "string" && UNAVAILABLE_CODES.has(link.code),
  );
}

/**
 * postgres.js queries the array types on each new connection, without awaiting the result. If the connection then
 * breaks, that causes an unhandled rejection. It is harmless: postgres.js repeats the query on the next connection.
 */
export function isAbandonedTypeLookup(error: unknown): boolean {
  return (
    error instanceof Error &&
    "query" in error &&
    typeof error.query === "string" &&
    /^\s*select b\.oid, b\.typarray\s+from pg_catalog\.pg_type/.test(error.query)
  );
}
