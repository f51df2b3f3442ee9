import postgres from "postgres";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { migrateDatabase } from "../../db/migrate.ts";
import { prepareService } from "../../db/prepare-service.ts";
import { findServiceRights } from "../../db/service-rights.ts";
import { openServiceRole } from "../../db/service-role.ts";
import {
  openEmptyDatabase,
  openTestDatabase,
  runAsAdmin,
  type TestDatabase,
} from "../support/test-database.ts";

let database: TestDatabase;
let service: postgres.Sql;
let owner: postgres.Sql;

beforeAll(async () => {
  database = await openTestDatabase();
  service = postgres(database.url, { max: 1, onnotice: () => {} });
  owner = postgres(database.adminUrl, { max: 1, onnotice: () => {} });
  await service`select append_audit('platform', '{}', 'a', null, null, null, '{}', null, '', '', '', '')`;
  await owner`insert into audit_anchors values ('platform', 'head', 1, '', now(), '')`;
  await service`select ensure_audit_partition(10000000)`;
});
afterAll(async () => {
  await Promise.all([service, owner].map(async (sql) => sql?.end({ timeout: 1 })));
  await database?.close();
});

const DENIED = { code: "42501" };
const REFUSED = { code: "23001" };

test("the role of the service has every right that the service needs, and none to change the audit log", async () => {
  const [session] = await service<{ role: string }[]>`select current_user as role`;
  expect(await findServiceRights(service, String(session?.role))).toEqual({ missing: [], excess: [] });
});

describe("the role of the service cannot", () => {
  const tables = ["audit_log", "audit_log_0", "audit_log_1", "audit_heads", "audit_anchors"];
  const statements = tables.flatMap((table) => [
    ...(table === "audit_anchors"
      ? []
      : [`update ${table} set seq = 2`, `insert into ${table} select * from ${table}`]),
    `delete from ${table}`,
    `truncate ${table}`,
    `drop table ${table}`,
    `alter table ${table} disable trigger all`,
    `alter table ${table} add column x int`,
    `create trigger t before insert on ${table} execute function audit_log_refuse_change()`,
    `create rule r as on delete to ${table} do instead nothing`,
    `alter table ${table} owner to current_user`,
  ]);
  test.each([
    ...statements,
    "alter table audit_log detach partition audit_log_0",
    "update audit_retention set seconds = 0",
    "insert into audit_retention values (true, 0)",
    "drop function append_audit",
    "alter function retire_audit owner to current_user",
    "create or replace function orch_now() returns timestamptz language sql as 'select now()'",
    "create function f() returns int language sql as 'select 1'",
    "create table mine ()",
    "set session_replication_role = replica",
    "alter table turn_events add column x int",
    "delete from drizzle.__drizzle_migrations",
  ])("%s", async (statement) => {
    await expect(service.unsafe(statement)).rejects.toMatchObject(DENIED);
  });
});

test("a new partition is closed to a role that default privileges give every right", async () => {
  await using own = await openTestDatabase();
  const { username: role } = new URL(own.url);
  const [one] = await owner<{ name: string }[]>`
    select proowner::regrole::text as name from pg_proc where proname = 'ensure_audit_partition'`;
  await runAsAdmin(
    own.adminUrl,
    `alter default privileges for role ${one?.name} grant all on tables to "${role}"`,
    "insert into audit_heads values ('long', 9999999, '')",
  );
  const sql = postgres(own.url, { max: 1 });
  try {
    await sql`select ensure_audit_partition(10000000)`;
    expect(await findServiceRights(sql, role)).toEqual({ missing: [], excess: [] });
    await expect(sql`delete from audit_log_1`).rejects.toMatchObject(DENIED);
    expect(await sql`select from audit_log_1`).toHaveLength(0);
  } finally {
    await sql.end();
  }
});

test("a role with a right to delete removes no row by setting the variable of retire_audit", async () => {
  await using own = await openTestDatabase();
  const sql = postgres(own.url, { max: 1 });
  try {
    await sql`select append_audit('platform', '{}', 'a', null, null, null, '{}', null, '', '', '', '')`;
    await runAsAdmin(own.adminUrl, "grant delete on audit_log_0 to public");
    await sql`set enginehouse.retires_audit = on`;
    await expect(sql`delete from audit_log_0`).rejects.toMatchObject(REFUSED);
  } finally {
    await sql.end();
  }
});

describe("the owner's mistake is refused", () => {
  test.each([
    "update audit_log set user_id = 'x'",
    "update audit_log_0 set user_id = 'x'",
    "delete from audit_log",
    "delete from audit_log_0",
    "truncate audit_log",
    "truncate audit_log_0",
    "truncate audit_log_1",
    "delete from audit_heads",
    "truncate audit_heads",
    "update audit_heads set seq = 0",
    "update audit_heads set scope = 'other', seq = seq + 1",
    "delete from audit_anchors",
    "truncate audit_anchors",
  ])("%s", async (statement) => {
    await expect(owner.unsafe(statement)).rejects.toMatchObject(REFUSED);
    expect(await owner`select seq from audit_heads`).toEqual([{ seq: "1" }]);
  });
});

test("retire_audit calls the built-in function, and none of the same name that stands in the schema", async () => {
  await owner.unsafe(`create function public.make_interval(secs bigint) returns interval language plpgsql as
    $$ begin raise exception 'called as %', current_user; end $$`);
  await owner`insert into audit_anchors values ('platform', 'start', 1, '', now(), '')`;
  await owner`insert into audit_retention values (true, 86400)`;
  expect(await service`select retire_audit('platform', 1) as removed`).toEqual([{ removed: "0" }]);
});

describe("the functions that run as the owner take only what the service needs", () => {
  test.each([
    ["a partition that no chain needs", "select ensure_audit_partition(40000000)"],
    ["a partition below the first row", "select ensure_audit_partition(-20000000)"],
    ["a partition of a far hour", "select ensure_turn_partition(now() + interval '10 days')"],
    ["another table", "select drop_turn_partition('turns')"],
    ["the audit log", "select drop_turn_partition('audit_log_0')"],
    ["no table", "select drop_turn_partition('turn_events_2020010100; drop table turns')"],
  ])("%s", async (_what, statement) => {
    await expect(service.unsafe(statement)).rejects.toMatchObject({ code: "22023" });
  });

  test("a partition of this hour is not dropped", async () => {
    await service`select ensure_turn_partition(orch_now())`;
    const [row] = await service<{ name: string }[]>`
      select 'turn_events_' || to_char(orch_now() at time zone 'UTC', 'YYYYMMDDHH24') as name`;
    await expect(service`select drop_turn_partition(${String(row?.name)})`).rejects.toMatchObject(REFUSED);
  });

  test("a temporary table of the caller does not stand in for a table of the service", async () => {
    await service`create temp table audit_heads (scope text, seq bigint, hash text)`;
    await service`insert into pg_temp.audit_heads values ('shadow', 41, 'x')`;
    const append = service`
      select append_audit('shadow', '{}', 'a', null, null, null, '{}', null, '', '', '', '') as seq`;
    expect(await append).toEqual([{ seq: "1" }]);
    await service`drop table pg_temp.audit_heads`;
  });

  test("nobody else may call them", async () => {
    const stranger = postgres(await openServiceRole(database.adminUrl, `stranger_${process.pid}`), {
      max: 1,
    });
    try {
      for (const call of ["retire_audit('platform', 1)", "ensure_audit_partition(0)"]) {
        await expect(stranger.unsafe(`select ${call}`)).rejects.toMatchObject(DENIED);
      }
    } finally {
      await stranger.end();
      await runAsAdmin(database.adminUrl, `drop role stranger_${process.pid}`);
    }
  });
});

test("a role gets the rights that are missing and loses those on the audit log, also after a later table", async () => {
  await using own = await openEmptyDatabase();
  const role = `granted_${process.pid}_${new URL(own.url).pathname.slice(-6)}`;
  const url = await openServiceRole(own.adminUrl, role);
  try {
    await migrateDatabase({ url: own.adminUrl });
    const prepare = async () =>
      prepareService({ url: own.adminUrl, serviceRole: role, auditRetentionMs: undefined });
    const find = async () => {
      const sql = postgres(url, { max: 1 });
      const rights = await findServiceRights(sql, role);
      await sql.end();
      return rights;
    };
    expect((await find()).missing).toContain("UPDATE on engines");
    await prepare();
    expect(await find()).toEqual({ missing: [], excess: [] });
    await runAsAdmin(own.adminUrl, "create table later (n int)", `grant all on audit_log to ${role}`);
    expect(await find()).toMatchObject({ missing: expect.arrayContaining(["SELECT on later"]) });
    expect((await find()).excess).toContain("TRUNCATE on audit_log");
    await runAsAdmin(own.adminUrl, "grant create on schema public to public");
    expect((await find()).excess).toContain("CREATE on the schema public");
    await runAsAdmin(own.adminUrl, "grant delete on audit_log_0 to public");
    expect((await find()).excess).toContain("DELETE on audit_log_0");
    await runAsAdmin(own.adminUrl, "revoke delete on audit_log_0 from public");
    await runAsAdmin(own.adminUrl, `grant delete on audit_log_0 to ${role}`);
    expect((await find()).excess).toContain("DELETE on audit_log_0");
    await prepare();
    expect(await find()).toEqual({ missing: [], excess: [] });
  } finally {
    await runAsAdmin(own.adminUrl, `drop owned by ${role}`, `drop role ${role}`);
  }
});

test("a role that can create functions in the schema is refused if the owner cannot change that", async () => {
  await using own = await openTestDatabase();
  const { username: role } = new URL(own.url);
  await using stack = new AsyncDisposableStack();
  const ownerRole = `maker_${process.pid}_${new URL(own.url).pathname.slice(-6)}`;
  const ownerUrl = await openServiceRole(own.adminUrl, ownerRole);
  stack.defer(async () => runAsAdmin(own.adminUrl, `drop owned by ${ownerRole}`, `drop role ${ownerRole}`));
  await runAsAdmin(
    own.adminUrl,
    "alter schema public owner to current_user",
    "grant create on schema public to public",
    `grant "${inject("databaseTemplate")}_owner" to ${ownerRole}`,
  );
  const prepared = prepareService({ url: ownerUrl, serviceRole: role, auditRetentionMs: undefined });
  await expect(prepared).rejects.toThrow("still has CREATE on the schema public: revoke it as a superuser");
});

test("a role that does not exist is named", async () => {
  const prepared = prepareService({
    url: inject("databaseAdminUrl"),
    serviceRole: "nobody_of_this_name",
    auditRetentionMs: undefined,
  });
  await expect(prepared).rejects.toThrow('the role "nobody_of_this_name" does not exist');
});
