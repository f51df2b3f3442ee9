import { join } from "node:path";
import { openEmbeddedPostgres } from "../../db/embedded/embedded-postgres.ts";

export interface TestCluster extends AsyncDisposable {
  /** The url of a superuser. */
  readonly url: string;
}

/** The Postgres server of a test run: the one at ORCH_TEST_DATABASE_URL if that is set, otherwise an embedded one. */
export async function openTestCluster(runDir: string): Promise<TestCluster> {
  const given = process.env["ORCH_TEST_DATABASE_URL"];
  if (given) return { url: given, [Symbol.asyncDispose]: async () => {} };
  return openEmbeddedPostgres({ dataDir: join(runDir, "cluster"), durable: false });
}
