import postgres from "postgres";

/** The Postgres error inside anything thrown; Drizzle wraps it as `cause`. */
export function findPostgresError(error: unknown): postgres.PostgresError | undefined {
  let current: unknown = error;
  while (current instanceof Error) {
    if (current instanceof postgres.PostgresError) return current;
    current = current.cause;
  }
  return undefined;
}

/** The constraint that a statement violated, or undefined when it failed for another reason. */
export function findViolatedConstraint(error: unknown): string | undefined {
  return findPostgresError(error)?.constraint_name;
}

const CONNECTION_CODES = new Set([
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
  // Out of connections, disk, memory, or another resource; and a disk that fails.
  "53000",
  "53100",
  "53200",
  "53300",
  "58030",
  // A statement, a lock or an idle transaction that took longer than we let it.
  "57014",
  "55P03",
  "25P03",
]);

/** Whether the database could not be asked at all, or went away while answering. */
export function isDatabaseUnavailable(error: unknown): boolean {
  let current: unknown = error;
  while (current instanceof Error) {
    if ("code" in current && typeof current.code === "string" && CONNECTION_CODES.has(current.code))
      return true;
    current = current.cause;
  }
  return false;
}

/**
 * postgres.js looks up array types on each connection that it makes, and waits for the answer nowhere: when the
 * connection breaks just then, that is an unhandled rejection although nothing was asked for that is not asked again.
 */
export function isAbandonedTypeLookup(error: unknown): boolean {
  return (
    error instanceof Error &&
    "query" in error &&
    typeof error.query === "string" &&
    /^\s*select b\.oid, b\.typarray\s+from pg_catalog\.pg_type/.test(error.query)
  );
}
