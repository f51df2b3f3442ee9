import type postgres from "postgres";
import { withConnection, withMigrationLock } from "./migrate.ts";
import { findServiceRights, listGrants } from "./service-rights.ts";

interface PrepareInput {
  /** The url of the schema's owner. */
  url: string;
  /** The role of the service. It exists already. undefined, or the owner: nothing is granted. */
  serviceRole: string | undefined;
  /** How long rows of the audit log are kept at the least. undefined: for ever. */
  auditRetentionMs: number | undefined;
  log?: (message: string) => void;
}

/**
 * Gives the service's role exactly the rights that it needs, and writes how long the audit log is kept. Both are for the
 * owner of the schema to decide. Call it after the migrations.
 *
 * @throws if the role does not exist, or if the owner may not grant or revoke a right.
 */
export async function prepareService(input: PrepareInput): Promise<void> {
  await withConnection(input.url, async (sql) =>
    withMigrationLock(sql, async (tx) => {
      await grantRights(tx, input);
      await writeRetention(tx, input);
    }),
  );
}

async function grantRights(tx: postgres.TransactionSql, { serviceRole, log }: PrepareInput): Promise<void> {
  if (serviceRole === undefined) return;
  const [found] = await tx<{ isOwner: boolean; exists: boolean }[]>`
    select current_user = ${serviceRole} as "isOwner",
      exists (select from pg_roles where rolname = ${serviceRole}) as exists`;
  if (found?.isOwner === true) return;
  if (found?.exists !== true) {
    throw new Error(`the role "${serviceRole}" does not exist: create it with \`create role … login\` first`);
  }
  const { missing, excess } = await findServiceRights(tx, serviceRole);
  if (missing.length === 0 && excess.length === 0) return;
  for (const statement of await listGrants(tx, serviceRole)) await tx.unsafe(statement);
  const left = await findServiceRights(tx, serviceRole);
  if (left.missing.length > 0) {
    throw new Error(
      `the role "${serviceRole}" still lacks ${left.missing.join(", ")}: run the migrations as the owner of the schema`,
    );
  }
  if (left.excess.length > 0) {
    throw new Error(
      `the role "${serviceRole}" still has ${left.excess.join(", ")}: revoke it as a superuser, also from "public"`,
    );
  }
  log?.(`granted the rights of the service to "${serviceRole}"`);
}

async function writeRetention(
  tx: postgres.TransactionSql,
  { auditRetentionMs, log }: PrepareInput,
): Promise<void> {
  const seconds = auditRetentionMs === undefined ? null : Math.ceil(auditRetentionMs / 1_000);
  const [found] = await tx<{ seconds: string | null; isWritable: boolean }[]>`
    select (select seconds from audit_retention) as seconds,
      has_table_privilege('audit_retention', 'DELETE') as "isWritable"`;
  if (found === undefined || (found.seconds === null ? null : Number(found.seconds)) === seconds) return;
  if (!found.isWritable) {
    log?.("the retention of the audit log is unchanged: only the owner of the schema can change it");
    return;
  }
  const before = found.seconds === null ? "for ever" : `for ${found.seconds} s`;
  if (seconds === null) {
    await tx`delete from audit_retention`;
    log?.(`the audit log is now kept for ever (before: ${before}): ORCH_AUDIT_RETENTION_S is not set`);
    return;
  }
  await tx`
    insert into audit_retention (singleton, seconds) values (true, ${seconds})
    on conflict (singleton) do update set seconds = excluded.seconds`;
  log?.(`the audit log is now kept for ${seconds} s (before: ${before})`);
}
