import { expect, inject, test } from "vitest";
import { openTempDir } from "../support/temp-dir.ts";
import { openEmptyDatabase, openTestDatabase, runAsAdmin, toDatabaseUrl } from "../support/test-database.ts";
import { ADMIN_KEY, callProcedure, registerProduct, startService } from "./spawn-service.ts";

const toEnvironment = (dataDir: string, databaseUrl: string) => ({
  ORCH_DATA_DIR: dataDir,
  ORCH_DATABASE_URL: databaseUrl,
  ORCH_ADMIN_KEY: ADMIN_KEY,
  ORCH_STOP_GRACE_S: "1",
});

/** Changes the defaults of a database for new sessions. */
async function alter(url: string, settings: Record<string, string>): Promise<void> {
  const name = new URL(url).pathname.slice(1);
  const statements = Object.entries(settings).map(
    ([setting, value]) => `alter database ${name} set ${setting} = ${value}`,
  );
  await runAsAdmin(toDatabaseUrl(inject("databaseAdminUrl"), name), ...statements);
}

const HOSTILE = {
  DateStyle: "'SQL, DMY'",
  IntervalStyle: "sql_standard",
  TimeZone: "'Asia/Kathmandu'",
  search_path: "nowhere",
  default_transaction_isolation: "serializable",
  default_transaction_deferrable: "on",
  synchronous_commit: "off",
  standard_conforming_strings: "off",
  backslash_quote: "off",
  array_nulls: "off",
  transform_null_equals: "on",
  bytea_output: "escape",
  extra_float_digits: "-15",
  row_security: "off",
  exit_on_error: "on",
  idle_session_timeout: "1",
  statement_timeout: "1",
  lock_timeout: "1",
  idle_in_transaction_session_timeout: "1",
  client_encoding: "LATIN1",
};

test("the defaults of the database and the role change nothing: migrations, calls, turns and the audit log work", async () => {
  await using home = await openTempDir();
  await using database = await openEmptyDatabase();
  await alter(database.url, HOSTILE);
  await using service = await startService(toEnvironment(home.path, database.url));
  const { url } = service;
  const operator = { url, key: ADMIN_KEY };
  const caller = { url, key: await registerProduct(url) };
  const userIds = Array.from({ length: 8 }, (_, n) => `user-${n}`);
  const provisioned = await Promise.all(
    userIds.map(async (userId) => callProcedure(caller, "engines.provision", { userId })),
  );
  expect(provisioned.map(({ status, reason }) => reason ?? status)).toEqual(userIds.map(() => 200));
  const engine = await callProcedure(caller, "engines.get", { userId: "user-0" });
  expect(engine.data["createdAt"]).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/);

  const turnId = crypto.randomUUID();
  const request = { message: "an \\ o'clock ü 😀", taskId: "t" };
  await callProcedure(caller, "turns.start", { turnId, userId: "user-0", request });
  await expect
    .poll(async () => (await callProcedure(caller, "turns.get", { turnId })).data["status"])
    .toBe("completed");
  expect((await callProcedure(caller, "engines.list", {})).data["items"]).toHaveLength(8);
  const destroyed = await Promise.all(
    userIds.map(async (userId) => callProcedure(caller, "engines.destroy", { userId })),
  );
  expect(destroyed.map(({ status }) => status)).toEqual(userIds.map(() => 200));
  expect((await callProcedure(operator, "audit.verify", {})).data).toMatchObject({ ok: true });
  expect(service.output()).not.toContain("call failed");
});

test("while the database is read-only, writes answer DATABASE_UNAVAILABLE, and the service recovers by itself", async () => {
  await using home = await openTempDir();
  await using database = await openTestDatabase();
  await using service = await startService(toEnvironment(home.path, database.url));
  const { url } = service;
  const caller = { url, key: await registerProduct(url) };
  const readiness = async () => {
    const response = await fetch(`${url}/readyz`);
    return [response.status, ((await response.json()) as { subsystems: object }).subsystems];
  };
  const endSessions = async () =>
    runAsAdmin(
      database.adminUrl,
      `select pg_terminate_backend(pid) from pg_stat_activity
       where datname = current_database() and pid <> pg_backend_pid()`,
    );
  await expect.poll(readiness).toMatchObject([200, { database: "ok" }]);

  // As after a failover: the connections break, and new ones reach a server that is read-only.
  await alter(database.url, { default_transaction_read_only: "on" });
  await endSessions();
  await expect.poll(readiness).toMatchObject([503, { database: "failed" }]);
  await expect
    .poll(async () => callProcedure(caller, "engines.provision", { userId: "ada" }))
    .toMatchObject({ status: 503, reason: "DATABASE_UNAVAILABLE" });
  for (let n = 0; n < 20; n += 1) {
    const { reason } = await callProcedure(caller, "engines.provision", { userId: `user-${n}` });
    expect(reason).toBe("DATABASE_UNAVAILABLE");
  }
  expect(service.output()).toContain("the database is read-only");

  // The open connections stay read-only for ever, so only new ones can write.
  const name = new URL(database.url).pathname.slice(1);
  await runAsAdmin(
    database.adminUrl,
    "set default_transaction_read_only = off",
    `alter database ${name} reset default_transaction_read_only`,
  );
  await expect.poll(readiness).toMatchObject([200, { database: "ok" }]);
  await expect
    .poll(async () => (await callProcedure(caller, "engines.provision", { userId: "ada" })).status)
    .toBe(200);
  const destroyed = await callProcedure(caller, "engines.destroy", { userId: "ada" });
  expect(destroyed.data).toMatchObject({ destroyed: true });
});
