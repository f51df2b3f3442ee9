import { randomUUID } from "node:crypto";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import postgres from "postgres";
import { expect, test } from "vitest";
import { takePortRange } from "../support/ports.ts";
import { openTempDir } from "../support/temp-dir.ts";
import { openTestDatabase } from "../support/test-database.ts";
import { ADMIN_KEY, callProcedure, registerProduct, startService } from "./spawn-service.ts";

test("sealed turns are read after a crash of the service and of Postgres, and by a service that does not seal", async () => {
  await using home = await openTempDir();
  await using database = await openTestDatabase();
  const ports = takePortRange(2);
  const environment = {
    ORCH_DATA_DIR: home.path,
    ORCH_DATABASE_URL: database.url,
    ORCH_ADMIN_KEY: ADMIN_KEY,
    ORCH_ENGINE_BACKEND: "process",
    ORCH_PORT_MIN: String(ports.min),
    ORCH_PORT_MAX: String(ports.max),
    ORCH_STOP_GRACE_S: "1",
  };
  const canary = `canary-${randomUUID()}`;
  const turnId = randomUUID();
  await using services = new AsyncDisposableStack();
  let service = services.use(await startService({ ...environment, ORCH_SEAL_TURNS: "true" }));
  const key = await registerProduct(service.url);
  const call = async (procedure: string, input: unknown) =>
    callProcedure({ url: service.url, key }, procedure, input);
  const readEvents = async () => {
    const headers = { authorization: `Bearer ${key}` };
    const response = await fetch(`${service.url}/v1/turns/${turnId}/events`, { headers });
    // A comment comes when there is no event yet.
    return (await response.text()).replaceAll(/^:\n\n/gm, "");
  };
  expect((await call("engines.provision", { userId: "ada" })).status).toBe(200);
  const request = { message: canary, taskId: "t" };
  expect((await call("turns.start", { turnId, userId: "ada", request })).status).toBe(200);
  const events = await readEvents();
  expect(events).toContain(canary);
  expect(events).toContain("enginehouse.end");

  const sql = postgres(database.adminUrl, { max: 1 });
  const rows = await sql`select t::text as text from turn_events t union all select t::text from turns t`;
  expect(rows.length).toBeGreaterThan(1);
  expect(JSON.stringify(rows)).not.toContain(canary);
  expect(await readdir(join(home.path, "data-keys"))).toHaveLength(1);
  await service.signal("SIGKILL");
  // As a crash of Postgres does.
  await sql`truncate data_keys`;
  service = services.use(await startService(environment));
  expect(await readEvents()).toBe(events);
  await expect.poll(async () => (await sql`select from data_keys`).length).toBe(1);
  await sql.end();
  expect((await call("engines.destroy", { userId: "ada" })).status).toBe(200);
  expect(await service.signal("SIGTERM")).toBe(0);
}, 240_000);
