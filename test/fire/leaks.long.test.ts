import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { promisify } from "node:util";
import postgres from "postgres";
import { describe, expect, test } from "vitest";
import { buildReferenceImage } from "../../server/runtime/docker/reference-image.ts";
import { removeEverything } from "../service/remove-everything.ts";
import { type Service, startService } from "../service/spawn-service.ts";
import { isDockerAvailable } from "../support/docker-available.ts";
import { takePortRange } from "../support/ports.ts";
import { openTempDir } from "../support/temp-dir.ts";
import { openTestDatabase } from "../support/test-database.ts";
import { findInFolders, findInText, readAllArguments, readEnvironments } from "./find-canaries.ts";
import { PROCEDURE_INPUTS } from "./procedure-inputs.ts";
import {
  callEverything,
  callRoutes,
  type Canaries,
  furnish,
  type LeakSite,
  makeCanaries,
} from "./leak-site.ts";

const run = promisify(execFile);
const quiet = { info: () => {}, warn: () => {} };
const DOCKER_HOST = process.env["DOCKER_HOST"];
/** What a user's own engine has, because the user or the product sent it there. */
const OF_ENGINES = ["turn content", "person's answer", "config", "rpc params"];
/** What an operator puts into the service's environment. */
const OF_SERVICE = ["bootstrap key", "database password", "master key", "provider key"];

/** A user's own secret in the brain of an engine, as `findInFolders` names it. */
const isOwn = (file: string) =>
  OF_ENGINES.some((name) => file.startsWith(`${name}: `)) && file.includes("brain.sqlite");

interface LeakWorld {
  site: LeakSite;
  service: Service;
  canaries: Canaries;
  home: string;
  temporary: string;
  adminUrl: string;
}

/** Starts the service with secrets of every kind, and sends them through every procedure and route. */
async function openLeakWorld(owned: AsyncDisposableStack, more: Record<string, string>): Promise<LeakWorld> {
  const home = owned.use(await openTempDir()).path;
  const temporary = owned.use(await openTempDir()).path;
  const database = owned.use(await openTestDatabase());
  const canaries = makeCanaries();
  const databaseUrl = new URL(database.url);
  // The tests' server asks local callers for no password, so any password works.
  databaseUrl.password ||= `canary${randomBytes(16).toString("hex")}`;
  canaries.set("database password", decodeURIComponent(databaseUrl.password));
  const service = owned.use(
    await startService({
      TMPDIR: temporary,
      ORCH_DATA_DIR: home,
      ORCH_DATABASE_URL: databaseUrl.href,
      ORCH_ADMIN_KEY: canaries.get("bootstrap key") ?? "",
      ORCH_MASTER_KEYS: canaries.masterKeys,
      ORCH_ENGINE_ENV_PASSTHROUGH: "PROVIDER_KEY",
      PROVIDER_KEY: canaries.get("provider key") ?? "",
      ORCH_SEAL_TURNS: "true",
      ORCH_LOG_LEVEL: "debug",
      ORCH_STOP_GRACE_S: "1",
      ...more,
    }),
  );
  const site: LeakSite = { url: service.url, canaries, refusals: [], accepted: new Set() };
  const fire = await furnish(site);
  await callRoutes(site, fire);
  await callEverything(site, fire);
  return { site, service, canaries, home, temporary, adminUrl: database.adminUrl };
}

/** Every row of every table, as text. */
async function readAllTables(adminUrl: string): Promise<string> {
  const sql = postgres(adminUrl, { max: 1 });
  try {
    const tables = await sql<{ name: string }[]>`
      select format('%I.%I', schemaname, tablename) as name from pg_tables
      where schemaname in ('public', 'drizzle')`;
    const texts: unknown[] = [];
    for (const { name } of tables) texts.push(await sql.unsafe(`select t::text from ${name} as t`));
    return JSON.stringify(texts);
  } finally {
    await sql.end();
  }
}

/** What both runtimes have in common: no secret is in any of these places. */
async function expectNoLeak({ site, service, canaries, temporary, adminUrl }: LeakWorld): Promise<void> {
  const paths = Object.keys(PROCEDURE_INPUTS).map((path) => `/trpc/${path}`);
  // There is no other daemon to accept. All other procedures were called with success, too.
  expect.soft(paths.filter((path) => !site.accepted.has(path))).toEqual(["/trpc/fleet.acceptRuntime"]);
  expect.soft(findInText(canaries, service.output()), "logs").toEqual([]);
  expect.soft(service.output()).toContain('"level":"debug"');
  expect.soft(findInText(canaries, site.refusals.join("\n")), "error bodies").toEqual([]);
  expect.soft(findInText(canaries, await readAllTables(adminUrl)), "tables").toEqual([]);
  expect.soft(findInText(canaries, await readAllArguments()), "arguments").toEqual([]);
  expect.soft(await findInFolders(canaries, [temporary]), "temporary files").toEqual([]);
}

describe("after secrets of every kind went through every procedure and route, they are only where they must be", () => {
  test("with engines in processes", { timeout: 600_000 }, async () => {
    await using owned = new AsyncDisposableStack();
    const ports = takePortRange(8);
    const world = await openLeakWorld(owned, {
      ORCH_ENGINE_BACKEND: "process",
      ORCH_PORT_MIN: String(ports.min),
      ORCH_PORT_MAX: String(ports.max),
    });
    const { canaries, home, service } = world;
    const environments = await readEnvironments(home);
    const found = environments.map(({ pid, text }) => [
      pid === service.pid ? "service" : "engine",
      findInText(canaries, text).sort(),
    ]);
    expect.soft(found).toContainEqual(["service", OF_SERVICE]);
    expect.soft(found.filter(([who]) => who === "engine").length).toBeGreaterThan(0);
    for (const [who, names] of found) if (who === "engine") expect(names).toEqual(["provider key"]);

    const files = await findInFolders(canaries, [home]);
    expect.soft(files.filter(isOwn)).not.toEqual([]);
    expect.soft(files.filter((file) => !isOwn(file))).toEqual([]);
    await expectNoLeak(world);
  });

  test.skipIf(!isDockerAvailable())("with engines in Docker", { timeout: 600_000 }, async () => {
    await using owned = new AsyncDisposableStack();
    const world = await openLeakWorld(owned, {
      ORCH_ENGINE_BACKEND: "docker",
      ORCH_ENGINE_IMAGE: await buildReferenceImage({ dockerHost: DOCKER_HOST, log: quiet }),
      ORCH_ENGINE_NETWORK: `eh-test-${randomBytes(4).toString("hex")}`,
      ...(DOCKER_HOST === undefined ? {} : { DOCKER_HOST }),
    });
    owned.defer(async () => removeEverything(world.service));
    const instanceId = /"instanceId":"([^"]+)"/.exec(world.service.output())?.[1] ?? "";
    const listed = await run("docker", ["ps", "-aq", "--filter", `label=enginehouse.instance=${instanceId}`]);
    const ids = listed.stdout.split("\n").filter((id) => id !== "");
    expect.soft(ids).not.toEqual([]);
    const inspected = await run("docker", ["inspect", ...ids]);
    // The engine's environment is in its container's description, so whoever has the socket has the provider's key.
    expect.soft(findInText(world.canaries, inspected.stdout)).toEqual(["provider key"]);
    const logs = await Promise.all(ids.map(async (id) => run("docker", ["logs", id])));
    expect.soft(findInText(world.canaries, JSON.stringify(logs)), "logs of engines").toEqual([]);
    expect.soft(await findInFolders(world.canaries, [world.home]), "data directory").toEqual([]);
    await expectNoLeak(world);
  });
});
