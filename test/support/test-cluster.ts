import { join } from "node:path";
import { openEmbeddedPostgres } from "../../db/embedded/embedded-postgres.ts";

export interface TestCluster extends AsyncDisposable {
  /** Of a superuser. */
  readonly url: string;
}

/** The one Postgres server of a test run: ORCH_TEST_DATABASE_URL when it is set, else an embedded one. */
export async function openTestCluster(runDir: string): Promise<TestCluster> {
  const given = process.env["ORCH_TEST_DATABASE_URL"];
  if (given) return { url: given, [Symbol.asyncDispose]: async () => {} };
  return openEmbeddedPostgres({ dataDir: join(runDir, "cluster"), durable: false });
}
