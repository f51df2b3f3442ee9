import { expect, test } from "vitest";
import { openTempDir } from "../support/temp-dir.ts";
import { openTestDatabase } from "../support/test-database.ts";
import { ADMIN_KEY, startService } from "./spawn-service.ts";

const toEnvironment = (dataDir: string, databaseUrl: string) => ({
  ORCH_DATA_DIR: dataDir,
  ORCH_DATABASE_URL: databaseUrl,
  ORCH_ADMIN_KEY: ADMIN_KEY,
});

test.each(["SIGHUP", "SIGQUIT"] as const)("%s drains the service and ends it with 0", async (name) => {
  await using home = await openTempDir();
  await using database = await openTestDatabase();
  await using service = await startService(toEnvironment(home.path, database.url));
  expect(await service.signal(name)).toBe(0);
  expect(service.output()).toMatch(/"draining".*"closed; engines keep running/s);
});

test("SIGUSR1 opens no debugger, and SIGUSR2 does not end the service", async () => {
  await using home = await openTempDir();
  await using database = await openTestDatabase();
  await using service = await startService(toEnvironment(home.path, database.url));
  for (const name of ["SIGUSR1", "SIGUSR2"] as const) {
    void service.signal(name);
    await expect.poll(() => service.output()).toContain(`"signal":"${name}","msg":"signal ignored"`);
  }
  expect(service.output()).not.toContain("Debugger listening");
  expect((await fetch(`${service.url}/healthz`)).status).toBe(200);
});
