import postgres from "postgres";
import { describe, expect, test } from "vitest";
import { openDatabase } from "../../db/client.ts";
import { findDatabaseTrouble, isDatabaseUnavailable, TROUBLES } from "../../db/postgres-error.ts";
import { toApiError } from "../../server/api/trpc/api-error.ts";
import { openEmptyDatabase, runAsAdmin } from "../support/test-database.ts";

const withCode = (code: string) => Object.assign(new Error("made to fail"), { code });

test.each(Object.entries(TROUBLES))(
  "%s, directly or as a cause, answers DATABASE_UNAVAILABLE and says what is wrong",
  (code, trouble) => {
    for (const error of [withCode(code), new Error("Failed query: x", { cause: withCode(code) })]) {
      expect(toApiError(error)).toMatchObject({
        reason: "DATABASE_UNAVAILABLE",
        httpStatus: 503,
        message: `the database ${trouble}: try again later`,
        retryAfterMs: 1_000,
      });
    }
  },
);

test.each([
  "08000 08001 08003 08004 08006 08007 08P01",
  "53000 53100 53200 53300 53400",
  "57P01 57P02 57P03 57P04 57P05",
  "25006 25P03 25P04 28000 28P01 3D000 40001 40P01 55P03 57014 58000 58030",
])("the codes %s mean not now", (codes) => {
  for (const code of codes.split(" ")) expect(findDatabaseTrouble(withCode(code))).toBeTypeOf("string");
});

test.each([
  "22012",
  "23505",
  "25P02",
  "42501",
  "42P01",
  "57000",
  "XX000",
  "XX001",
  "F0000",
  "ERR_X",
  "toString",
])("%s is our own fault or a broken database, and stays INTERNAL", (code) => {
  expect(isDatabaseUnavailable(withCode(code))).toBe(false);
  expect(toApiError(withCode(code))).toMatchObject({ reason: "INTERNAL" });
});

describe("a real Postgres", () => {
  const SETTING = "set local statement_timeout = 1";
  const failing: [string, string[], string][] = [
    ["a read-only transaction", ["set transaction read only", "create table t ()"], "25006"],
    ["an ended session", ["select pg_terminate_backend(pg_backend_pid())"], "57P01"],
    ["a slow statement", [SETTING, "select pg_sleep(10)"], "57014"],
    [
      "a serialization conflict",
      ["do $$ begin raise sqlstate '40001' using message = 'could not serialize access'; end $$"],
      "40001",
    ],
  ];
  test.each(failing)("%s means not now", async (_name, statements, code) => {
    await using own = await openEmptyDatabase();
    await using database = openDatabase({ url: own.url, poolSize: 2, applicationName: "trouble" });
    const failed = database.db.transaction(async (tx) => {
      for (const statement of statements) await tx.execute(statement);
    });
    const error: unknown = await failed.then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    expect(toApiError(error)).toMatchObject({ reason: "DATABASE_UNAVAILABLE" });
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
    expect([code, "CONNECTION_CLOSED"]).toContain((cause as { code?: string }).code);
  });

  test("a role without free connections, a missing database and a wrong password mean not now", async () => {
    await using own = await openEmptyDatabase();
    const role = `limited_${new URL(own.url).pathname.slice(-12)}`;
    await runAsAdmin(own.url, `create role ${role} login password 'right' connection limit 0`);
    try {
      const url = new URL(own.url);
      const missing = new URL(own.url);
      missing.pathname = "/missing_database";
      Object.assign(url, { username: role, password: "right" });
      const wrong = new URL(url);
      wrong.password = "wrong";
      for (const [address, code] of [
        [url.href, "53300"],
        [missing.href, "3D000"],
        [wrong.href, "28P01"],
      ] as const) {
        const sql = postgres(address, { max: 1 });
        const error: unknown = await sql`select 1`.catch((thrown: unknown) => thrown);
        await sql.end();
        expect(error).toMatchObject({ code });
        expect(toApiError(error)).toMatchObject({ reason: "DATABASE_UNAVAILABLE" });
      }
    } finally {
      await runAsAdmin(own.url, `drop role ${role}`);
    }
  });
});
