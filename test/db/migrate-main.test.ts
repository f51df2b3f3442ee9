import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { auditRetentionSeconds } from "../../server/config/value-kinds.ts";
import { openEmptyDatabase } from "../support/test-database.ts";

const program = fileURLToPath(new URL("../../db/migrate-main.ts", import.meta.url));

async function run(env: Record<string, string>): Promise<{ code: unknown; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [program], { env }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : error.code, stdout, stderr });
    });
  });
}

test("db:migrate applies the pending migrations and names them, and a second call applies none", async () => {
  await using database = await openEmptyDatabase();
  const first = await run({ ORCH_DATABASE_URL: database.url });
  expect(first).toMatchObject({ code: 0, stderr: "" });
  expect(first.stdout).toContain("applied migration 0000_");
  const second = await run({ ORCH_DATABASE_URL: database.url });
  expect(second).toEqual({
    code: 0,
    stderr: "",
    stdout: "db:migrate: nothing to apply, the schema is current\n",
  });
});

test("db:migrate prefers ORCH_MIGRATION_DATABASE_URL", async () => {
  await using database = await openEmptyDatabase();
  const unreachable = `postgres://${new URL(database.url).username}:nothing@127.0.0.1:1/none`;
  const ran = await run({ ORCH_MIGRATION_DATABASE_URL: database.url, ORCH_DATABASE_URL: unreachable });
  expect(ran.code).toBe(0);
});

test("db:migrate without a database names the variables to set", async () => {
  const ran = await run({});
  expect(ran.code).toBe(2);
  expect(ran.stderr).toContain("set ORCH_MIGRATION_DATABASE_URL or ORCH_DATABASE_URL");
});

test("db:migrate takes the same retention of the audit log as the service, and names each change of it", async () => {
  await using database = await openEmptyDatabase();
  const runWith = async (retention: string) =>
    run({ ORCH_DATABASE_URL: database.url, ORCH_AUDIT_RETENTION_S: retention });
  for (const wrong of ["86399", "1e6", "99999999999"]) {
    const refused = await runWith(wrong);
    expect(refused.code).toBe(2);
    expect(refused.stderr).toContain(
      `ORCH_AUDIT_RETENTION_S is "${wrong}": it takes ${auditRetentionSeconds.takes}`,
    );
  }
  expect((await runWith("86400")).stdout).toContain("now kept for 86400 s (before: for ever)");
  expect((await runWith("86400")).stdout).not.toContain("now kept");
  expect((await runWith("90000")).stdout).toContain("now kept for 90000 s (before: for 86400 s)");
  expect((await runWith("")).stdout).toContain("now kept for ever (before: for 90000 s)");
});

test("db:migrate that cannot connect fails without printing the password", async () => {
  const ran = await run({ ORCH_DATABASE_URL: "postgres://nobody:hush-hush@127.0.0.1:1/none" });
  expect(ran.code).toBe(1);
  expect(ran.stderr).toContain("ECONNREFUSED");
  expect(ran.stderr).not.toContain("hush-hush");
});
