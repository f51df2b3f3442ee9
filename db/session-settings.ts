/**
 * Settings of a session that change what statements mean. A database or a role may have other defaults, so every
 * connection names them when it starts. Startup parameters take precedence over those defaults, and cost no round trip.
 *
 * `default_transaction_read_only` is missing on purpose: a database that is made read-only must stay so.
 */
export const SESSION_SETTINGS: Readonly<Record<string, string>> = {
  DateStyle: "ISO, MDY",
  IntervalStyle: "postgres",
  TimeZone: "UTC",
  search_path: "public",
  default_transaction_isolation: "read committed",
  default_transaction_deferrable: "off",
  // With `off`, a crash of Postgres loses what callers were told is done.
  synchronous_commit: "on",
  standard_conforming_strings: "on",
  backslash_quote: "safe_encoding",
  array_nulls: "on",
  transform_null_equals: "off",
  bytea_output: "hex",
  extra_float_digits: "1",
  row_security: "on",
  exit_on_error: "off",
  // Postgres would end the idle connections of the pool, and the next statement of each would fail.
  idle_session_timeout: "0",
};

/** What a session must have, by the names of pg_settings. The url of the database may choose another schema. */
export const REQUIRED_SETTINGS: ReadonlyMap<string, string> = new Map([
  ...Object.entries(SESSION_SETTINGS).filter(([name]) => name !== "search_path"),
  // Only a superuser may set it. With `replica`, the triggers that protect the audit log do not fire.
  ["session_replication_role", "origin"],
]);
