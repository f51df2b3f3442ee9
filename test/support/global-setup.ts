import { randomBytes } from "node:crypto";
import postgres from "postgres";
import type { TestProject } from "vitest/node";
import { migrateDatabase } from "../../db/migrate.ts";
import { findDocker } from "./docker-available.ts";
import { takePortBlock } from "./port-block.ts";
import { openRunDir } from "./run-dir.ts";
import { openTestCluster } from "./test-cluster.ts";
import { runAsAdmin } from "./test-database.ts";

declare module "vitest" {
  interface ProvidedContext {
    databaseAdminUrl: string;
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
  opened.defer(async () => dropDatabases(cluster.url, template));
  await makeTemplate(cluster.url, template);
  project.provide("databaseAdminUrl", cluster.url);
  project.provide("databaseTemplate", template);
  project.provide("dockerAvailable", dockerAvailable);
  project.provide("firstPort", ports.first);
  const kept = opened.move();
  return async () => kept.disposeAsync();
}

async function makeTemplate(adminUrl: string, template: string): Promise<void> {
  await runAsAdmin(adminUrl, `create database ${template}`);
  const url = new URL(adminUrl);
  url.pathname = `/${template}`;
  await migrateDatabase({ url: url.href });
  // Postgres cannot clone a template that has connections.
  await runAsAdmin(adminUrl, `alter database ${template} allow_connections false`);
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
