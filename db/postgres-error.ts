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

const UNREACHABLE = "cannot be reached";
const STOPPING = "is starting, stopping or recovering";
const TOO_SLOW = "took longer than the time limit";
const CONFLICT = "ended the transaction because of a conflict with another one";
const REFUSED = "refuses the role or the password of this service";

/**
 * Every error that means "not now": its code, or the first characters of its SQLSTATE, and what it says about the
 * database. The longest key that fits counts. After such an error the same call may succeed later.
 */
export const TROUBLES: Readonly<Record<string, string>> = {
  // postgres.js
  CONNECT_TIMEOUT: UNREACHABLE,
  CONNECTION_CLOSED: UNREACHABLE,
  CONNECTION_DESTROYED: UNREACHABLE,
  CONNECTION_ENDED: UNREACHABLE,
  // the network of this machine
  ECONNREFUSED: UNREACHABLE,
  ECONNRESET: UNREACHABLE,
  ECONNABORTED: UNREACHABLE,
  EAI_AGAIN: UNREACHABLE,
  EHOSTDOWN: UNREACHABLE,
  EHOSTUNREACH: UNREACHABLE,
  ENETDOWN: UNREACHABLE,
  ENETUNREACH: UNREACHABLE,
  ENOTFOUND: UNREACHABLE,
  ETIMEDOUT: UNREACHABLE,
  EPIPE: UNREACHABLE,
  ENOENT: UNREACHABLE,
  // SQLSTATE classes and codes
  "08": UNREACHABLE,
  "25006": "is read-only, as during a failover",
  "25P03": TOO_SLOW,
  "25P04": TOO_SLOW,
  "28000": REFUSED,
  "28P01": REFUSED,
  "3D000": "does not exist",
  "40001": CONFLICT,
  "40P01": CONFLICT,
  "53": "has no resources left",
  "53100": "has no disk space left",
  "53200": "has no memory left",
  "53300": "has no connections left",
  "55P03": "waited too long for a lock",
  "57014": TOO_SLOW,
  "57P": STOPPING,
  "57P04": "does not exist",
  "58000": "has a failing disk or system",
  "58030": "has a failing disk or system",
};

/** What is wrong with the database, as the end of a sentence. undefined: the error has another cause. */
export function findDatabaseTrouble(error: unknown): string | undefined {
  for (const link of toChain(error)) {
    const trouble = "code" in link && typeof link.code === "string" ? toTrouble(link.code) : undefined;
    if (trouble !== undefined) return trouble;
  }
  return undefined;
}

function toTrouble(code: string): string | undefined {
  const keys = /^\d/.test(code) ? [code, code.slice(0, 3), code.slice(0, 2)] : [code];
  const key = keys.find((one) => Object.hasOwn(TROUBLES, one));
  return key === undefined ? undefined : TROUBLES[key];
}

/** Whether the database could not be reached, or cannot serve the statement now. */
export function isDatabaseUnavailable(error: unknown): boolean {
  return findDatabaseTrouble(error) !== undefined;
}

/** Whether Postgres ended the transaction in favour of another one. Nothing of it was written. */
export function isConflict(error: unknown): boolean {
  const code = findPostgresError(error)?.code;
  return code === "40001" || code === "40P01";
}

/** Whether Postgres refused to write, because the session or the whole server is read-only. */
export function isReadOnlyRefusal(error: unknown): boolean {
  return findPostgresError(error)?.code === "25006";
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
