import { expect, test } from "vitest";
import { openTempDir } from "../support/temp-dir.ts";
import { openTestDatabase } from "../support/test-database.ts";
import { openTransactionPooler } from "../support/transaction-pooler.ts";
import { ADMIN_KEY, spawnService } from "./spawn-service.ts";

test("a start behind a connection pooler in transaction mode is refused by name", async () => {
  await using home = await openTempDir();
  await using database = await openTestDatabase();
  await using pooler = await openTransactionPooler(database.url);
  await using service = spawnService({
    ORCH_DATA_DIR: home.path,
    ORCH_DATABASE_URL: pooler.url,
    ORCH_ADMIN_KEY: ADMIN_KEY,
  });
  expect(await service.exited).toBe(1);
  expect(service.output()).toContain("a connection pooler in transaction mode answers instead of Postgres");
});
