import type postgres from "postgres";

export interface RenewingClient {
  /** Passes each statement to the newest client. */
  readonly sql: postgres.Sql;
  /** Replaces the connections soon. Further calls until then change nothing. */
  renew(): void;
  close(): Promise<void>;
}

/** Called with each setting that a server reports for a new connection, and when the setting changes. */
export type OnParameter = (name: string, value: string) => void;

const RENEW_AFTER_MS = 1_000;
const END_S = 10;
const CLOSE_S = 5;

/**
 * A client whose connections are replaced when one of them is read-only. After a failover, such a connection leads to
 * a server that is no longer the primary; only a new connection can reach the new one. While the database stays
 * read-only, new connections are read-only too, so the replacement is repeated at most every `RENEW_AFTER_MS`.
 *
 * postgres.js cannot close a single connection, so this ends the whole client. Its running statements have `END_S` to
 * end; new statements use the new client at once.
 */
export function openRenewingClient(open: (onParameter: OnParameter) => postgres.Sql): RenewingClient {
  let timer: NodeJS.Timeout | undefined;
  let isClosed = false;
  const ending = new Set<Promise<void>>();

  const openOne = () => {
    const client = open((name, value) => {
      if (client === current && value === "on" && isReadOnlyReport(name)) renew();
    });
    return client;
  };
  const replace = () => {
    timer = undefined;
    const old = current;
    current = openOne();
    const ended = old.end({ timeout: END_S }).finally(() => ending.delete(ended));
    ending.add(ended);
  };
  const renew = () => {
    if (!isClosed) timer ??= setTimeout(replace, RENEW_AFTER_MS).unref();
  };
  let current = openOne();

  const sql = new Proxy((() => undefined) as unknown as postgres.Sql, {
    apply: (_target, _this, args) => Reflect.apply(current, undefined, args) as unknown,
    get: (_target, name) => Reflect.get(current, name) as unknown,
  });
  const close = async () => {
    isClosed = true;
    clearTimeout(timer);
    await Promise.all([current.end({ timeout: CLOSE_S }), ...ending]);
  };
  return { sql, renew, close };
}

/** Postgres 14 and newer report these two for each connection. */
function isReadOnlyReport(name: string): boolean {
  return name === "in_hot_standby" || name === "default_transaction_read_only";
}
