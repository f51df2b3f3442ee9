import { randomBytes } from "node:crypto";
import postgres from "postgres";
import type { TestProject } from "vitest/node";
import { migrateDatabase } from "../../db/migrate.ts";
import { prepareService } from "../../db/prepare-service.ts";
import { openServiceRole } from "../../db/service-role.ts";
import { findDocker } from "./docker-available.ts";
import { takePortBlock } from "./port-block.ts";
import { openRunDir } from "./run-dir.ts";
import { openTestCluster } from "./test-cluster.ts";
import { runAsAdmin, toDatabaseUrl } from "./test-database.ts";

declare module "vitest" {
  interface ProvidedContext {
    databaseAdminUrl: string;
    /** The role of the service, which has only the rights that the service needs. */
    databaseServiceUrl: string;
    databaseTemplate: string;
    dockerAvailable: boolean;
    /** See `takePortRange`. */
    firstPort: number;
  }
}

export default async function setUp(project: TestProject): Promise<() => Promise<void>> {
  await using opened = new AsyncDisposableStack();
  const dockerAvailable = await findDocker();
  if (!dockerAvailable) console.warn("No Docker daemon answers: the tests that need one are skipped.");
  const runDir = await openRunDir();
  opened.defer(async () => {
    const left = (await runDir.close()).filter((name) => name !== "cluster");
    if (left.length > 0)
      console.warn(`Tests left temporary files, which are now removed: ${left.join(", ")}`);
  });
  const ports = opened.use(await takePortBlock());
  const cluster = opened.use(await openTestCluster(runDir.path));
  const template = `ehtest_${process.pid}_${randomBytes(4).toString("hex")}`;
  const roles = { owner: `${template}_owner`, service: `${template}_service` };
  opened.defer(async () => dropRoles(cluster.url, Object.values(roles)));
  opened.defer(async () => dropDatabases(cluster.url, template));
  const serviceUrl = await makeTemplate(cluster.url, template, roles);
  project.provide("databaseAdminUrl", cluster.url);
  project.provide("databaseServiceUrl", serviceUrl);
  project.provide("databaseTemplate", template);
  project.provide("dockerAvailable", dockerAvailable);
  project.provide("firstPort", ports.first);
  const kept = opened.move();
  return async () => kept.disposeAsync();
}

interface Roles {
  owner: string;
  service: string;
}

/** Neither role is a superuser. Returns the url of the service's role. */
async function makeTemplate(adminUrl: string, template: string, roles: Roles): Promise<string> {
  const ownerUrl = await openServiceRole(adminUrl, roles.owner);
  const serviceUrl = await openServiceRole(adminUrl, roles.service);
  await runAsAdmin(adminUrl, `create database ${template} owner ${roles.owner}`);
  const url = toDatabaseUrl(ownerUrl, template);
  await migrateDatabase({ url });
  await prepareService({ url, serviceRole: roles.service, auditRetentionMs: undefined });
  // Postgres cannot clone a template that has connections.
  await runAsAdmin(adminUrl, `alter database ${template} allow_connections false`);
  return serviceUrl;
}

async function dropRoles(adminUrl: string, roles: readonly string[]): Promise<void> {
  await runAsAdmin(adminUrl, ...roles.map((role) => `drop role if exists "${role}"`));
}

/** Drops the template and its clones. An interrupted test leaves clones, which would stay on a shared server. */
async function dropDatabases(adminUrl: string, template: string): Promise<void> {
  const sql = postgres(adminUrl, { max: 1, onnotice: () => {} });
  try {
    const rows = await sql`select datname from pg_database where starts_with(datname, ${template})`;
    for (const { datname } of rows) await sql.unsafe(`drop database if exists "${datname}" with (force)`);
  } finally {
    await sql.end({ timeout: 5 });
  }
}
