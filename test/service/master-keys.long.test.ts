import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import postgres from "postgres";
import { expect, test } from "vitest";
import { generateMasterKeys, openKeyring } from "../../server/keys/keyring.ts";
import { openEmbeddedPostgres } from "../../db/embedded/embedded-postgres.ts";
import { openTempDir } from "../support/temp-dir.ts";
import { openTestDatabase } from "../support/test-database.ts";
import { ADMIN_KEY, callProcedure, registerProduct, spawnService, startService } from "./spawn-service.ts";

const ADOPT = fileURLToPath(new URL("../../server/master-keys/adopt-main.ts", import.meta.url));
const [OLD, NEW] = [generateMasterKeys(), generateMasterKeys()];
const [OLD_ID = "", NEW_ID = ""] = [OLD.split(":")[0], NEW.split(":")[0]];

async function runAdopt(env: Record<string, string>, ...args: string[]) {
  return new Promise<{ code: unknown; stdout: string; stderr: string }>((resolve) => {
    execFile(process.execPath, [ADOPT, ...args], { env }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : error.code, stdout, stderr });
    });
  });
}

/** The exit code and the output of a start that must fail. */
async function startRefused(environment: Record<string, string>) {
  const service = spawnService(environment);
  return { code: await service.exited, output: service.output() };
}

const call = async (url: string, key: string, procedure: string, input: object) =>
  callProcedure({ url, key }, procedure, input);

/** Makes the rows as a version without MACs left them. */
async function downgrade(sql: postgres.Sql, masterKeys: string): Promise<void> {
  const ring = openKeyring(masterKeys);
  for (const row of await sql`select id, product_id, user_id, key_sealed from engines`) {
    const data = `engine_key ${JSON.stringify([row["product_id"], row["user_id"], row["id"]])}`;
    const sealed = ring.seal(ring.open(row["key_sealed"], data), row["id"]);
    await sql`update engines set key_sealed = ${sealed}, mac = null, endpoint_mac = null where id = ${row["id"]}`;
  }
  await sql`update products set mac = null`;
  await sql`update platform_keys set mac = null`;
  await sql`delete from master_keys`;
}

test("a reseal that is killed in the middle goes on, and then the old master key can be dropped", async () => {
  await using home = await openTempDir();
  await using database = await openTestDatabase();
  const base = {
    ORCH_DATA_DIR: home.path,
    ORCH_DATABASE_URL: database.url,
    ORCH_ADMIN_KEY: ADMIN_KEY,
    ORCH_STOP_GRACE_S: "1",
  };
  const sql = postgres(database.url, { max: 1 });
  const first = await startService({ ...base, ORCH_MASTER_KEYS: OLD });
  const key = await registerProduct(first.url);
  await call(first.url, key, "engines.provision", { userId: "ada" });
  const { data } = await call(first.url, ADMIN_KEY, "products.list", {});
  const [product] = data["items"] as { productId: string }[];
  for (let round = 0; round < 60; round += 1) {
    const input = { productId: product?.productId, name: "one of many" };
    await Promise.all(
      Array.from({ length: 20 }, async () => call(first.url, ADMIN_KEY, "platformKeys.issue", input)),
    );
  }
  await first.signal("SIGTERM");

  const lost = await startRefused({ ...base, ORCH_MASTER_KEYS: NEW });
  expect(lost).toMatchObject({ code: 2, output: expect.stringContaining(OLD_ID) });

  const second = await startService({ ...base, ORCH_MASTER_KEYS: `${NEW},${OLD}` });
  const countNew = async () =>
    Number((await sql`select count(*) from platform_keys where mac like ${`${NEW_ID}:%`}`)[0]?.["count"]);
  const cut = call(second.url, ADMIN_KEY, "engineKeys.reseal", { batch: 10_000 }).catch(() => undefined);
  await expect.poll(countNew, { interval: 1 }).toBeGreaterThan(0);
  await second.signal("SIGKILL");
  await cut;
  const moved = await countNew();
  expect(moved).toBeGreaterThan(0);

  const third = await startService({ ...base, ORCH_MASTER_KEYS: `${NEW},${OLD}` });
  const resealing = { goesOn: true };
  const rotating = (async () => {
    let apiKey = "";
    while (resealing.goesOn || apiKey === "") {
      const rotated = await call(third.url, key, "engineKeys.rotate", { userId: "ada", when: "now" });
      expect(rotated.status, JSON.stringify(rotated)).toBe(200);
      apiKey = String(rotated.data["apiKey"]);
    }
    return apiKey;
  })();
  let remaining = Number.POSITIVE_INFINITY;
  while (remaining > 0) {
    const reply = await call(third.url, ADMIN_KEY, "engineKeys.reseal", { batch: 200 });
    expect(reply.data).toMatchObject({ unverified: 0 });
    expect(Number(reply.data["remaining"])).toBeLessThan(remaining + 2);
    remaining = Number(reply.data["remaining"]);
  }
  resealing.goesOn = false;
  const engineKey = await rotating;
  expect((await call(third.url, ADMIN_KEY, "engineKeys.reseal", {})).data).toMatchObject({ remaining: 0 });
  await third.signal("SIGTERM");

  await using last = await startService({ ...base, ORCH_MASTER_KEYS: NEW });
  const found = await call(last.url, key, "engines.get", { userId: "ada" });
  expect(found.data).toMatchObject({ status: "running" });
  const direct = await fetch(`${String(found.data["url"])}/rpc`, {
    method: "POST",
    headers: { "x-engine-key": engineKey, "content-type": "application/json" },
    body: JSON.stringify({ method: "get_config", params: {} }),
  });
  expect(direct.status).toBe(200);
  expect((await call(last.url, key, "rpc.call", { userId: "ada", method: "get_config" })).status).toBe(200);
  expect((await call(last.url, key, "engines.restart", { userId: "ada" })).status).toBe(200);
  expect((await call(last.url, key, "engines.destroy", { userId: "ada" })).status).toBe(200);
  expect((await call(last.url, ADMIN_KEY, "audit.verify", {})).data).toMatchObject({ ok: true });
  await sql.end();
}, 600_000);

test("the rows of an earlier version are refused until keys:adopt has signed them, and forged ones show", async () => {
  await using home = await openTempDir();
  await using database = await openTestDatabase();
  const environment = {
    ORCH_DATA_DIR: home.path,
    ORCH_DATABASE_URL: database.url,
    ORCH_ADMIN_KEY: ADMIN_KEY,
    ORCH_MASTER_KEYS: OLD,
    ORCH_STOP_GRACE_S: "1",
  };
  const sql = postgres(database.url, { max: 1 });
  const before = await startService(environment);
  const key = await registerProduct(before.url);
  await call(before.url, key, "engines.provision", { userId: "ada" });
  await before.signal("SIGTERM");
  await downgrade(sql, OLD);

  const refused = await startRefused(environment);
  expect(refused).toMatchObject({ code: 2, output: expect.stringContaining("npm run keys:adopt") });
  const env = { ORCH_DATABASE_URL: database.url, ORCH_MASTER_KEYS: OLD };
  expect(await runAdopt({ ...env, ORCH_MASTER_KEYS: NEW })).toMatchObject({
    code: 1,
    stderr: expect.stringContaining(OLD_ID),
  });
  const shown = await runAdopt(env);
  expect(shown).toMatchObject({ code: 0, stderr: "" });
  expect(shown.stdout).toContain("1 x engines");
  expect(shown.stdout).toContain("nothing was changed");
  expect(await startRefused(environment)).toMatchObject({ code: 2 });
  expect((await runAdopt(env, "--write")).stdout).toContain("3 rows adopted");

  const after = await startService(environment);
  expect((await call(after.url, key, "rpc.call", { userId: "ada", method: "get_config" })).status).toBe(200);
  // A MAC that is erased later is not taken for an upgrade, also not by a restart.
  await sql`update engines set mac = null, spec = jsonb_set(spec, '{catalogPath}', '"/"')`;
  const rotate = { userId: "ada", when: "now" };
  expect((await call(after.url, key, "engineKeys.rotate", rotate)).reason).toBe("ROW_TAMPERED");
  await after.signal("SIGTERM");
  const again = await startService(environment);
  expect((await call(again.url, key, "engines.restart", { userId: "ada" })).reason).toBe("ROW_TAMPERED");
  const found = await call(again.url, key, "engines.get", { userId: "ada" });
  expect(found.data["statusReason"]).toContain("row_tampered");
  await again.signal("SIGTERM");

  // An operator repairs the row, and vouches for it.
  const forged = await runAdopt(env);
  expect(forged.stdout).toContain('\\"catalogPath\\":\\"/\\"'.replaceAll("\\", ""));
  expect(forged.stdout).toContain("this is not the first adoption");
  await sql`update engines set spec = jsonb_set(spec, '{catalogPath}', ${JSON.stringify(join(home.path, "catalog"))}::text::jsonb)`;
  const [engine] = await sql`select id from engines`;
  expect((await runAdopt(env, "--write", `--row=engines:${engine?.["id"]}`)).code).toBe(0);
  await using repaired = await startService(environment);
  expect((await call(repaired.url, key, "engines.restart", { userId: "ada" })).status).toBe(200);
  expect((await call(repaired.url, key, "engines.destroy", { userId: "ada" })).status).toBe(200);
  await sql.end();
}, 600_000);

test("a development start adopts the rows of an earlier version in its own data directory", async () => {
  await using home = await openTempDir();
  const environment = { ORCH_DATA_DIR: home.path, ORCH_ADMIN_KEY: ADMIN_KEY, ORCH_STOP_GRACE_S: "1" };
  const before = await startService(environment);
  const key = await registerProduct(before.url);
  await call(before.url, key, "engines.provision", { userId: "ada" });
  await before.signal("SIGTERM");
  const secrets = JSON.parse(await readFile(join(home.path, "secrets.json"), "utf8")) as {
    masterKeys: string;
  };
  {
    await using embedded = await openEmbeddedPostgres({ dataDir: home.path });
    const sql = postgres(embedded.url, { max: 1 });
    await downgrade(sql, secrets.masterKeys);
    await sql.end();
  }
  await using after = await startService(environment);
  expect(after.output()).toContain("adopted the rows of an earlier version");
  expect((await call(after.url, key, "rpc.call", { userId: "ada", method: "get_config" })).status).toBe(200);
  expect((await call(after.url, key, "engines.destroy", { userId: "ada" })).status).toBe(200);
}, 600_000);
