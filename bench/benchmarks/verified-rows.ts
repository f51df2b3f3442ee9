import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { appendAuditRows, copyAuditRows } from "../../db/audit-log.ts";
import { openDatabase, type Database } from "../../db/client.ts";
import { openEmbeddedPostgres } from "../../db/embedded/embedded-postgres.ts";
import { migrateDatabase } from "../../db/migrate.ts";
import { toAuditValues } from "../../server/audit/append-audit.ts";
import { verifyAudit } from "../../server/audit/verify-audit.ts";
import { generateMasterKeys, openKeyring } from "../../server/keys/keyring.ts";
import type { Benchmark } from "../benchmark.ts";
import { toMeasure } from "../measure.ts";
import { alternate } from "../rounds.ts";

const ROWS = 200_000;
const ROWS_AT_ONCE = 2_000;
const ROUNDS = 5;
const SCOPE = "01900000-0000-7000-8000-000000000000";

/** `audit.verify` over one long chain, beside reading the same rows and looking at none of them. */
export const verifiedRows: Benchmark = {
  name: "verified-rows",
  run: async (ctx) => {
    await using stack = new AsyncDisposableStack();
    const dataDir = await mkdtemp(join(tmpdir(), "enginehouse-bench-"));
    stack.defer(() => rm(dataDir, { recursive: true, force: true, maxRetries: 10 }));
    const { url } = stack.use(await openEmbeddedPostgres({ dataDir }));
    await migrateDatabase({ url });
    const database = stack.use(openDatabase({ url, poolSize: 2, applicationName: "bench" }));
    await fill(database);
    const keyring = openKeyring(generateMasterKeys());
    const time = async (work: () => Promise<void>) => {
      const begin = performance.now();
      await work();
      return (ROWS * 1_000) / (performance.now() - begin);
    };
    const sides = {
      read: () =>
        time(async () => {
          const rows = await copyAuditRows(database.raw, { scope: SCOPE, afterSeq: 0, toSeq: ROWS });
          for await (const chunk of rows) void chunk;
        }),
      verify: () =>
        time(async () => {
          const verdict = await verifyAudit({ ...database, keyring }, { scope: SCOPE });
          if (!verdict.ok || verdict.checked !== ROWS) throw new Error(JSON.stringify(verdict));
        }),
    };
    await alternate(sides, 1);
    ctx.log(`${ROUNDS} rounds of ${ROWS} rows`);
    const { read, verify } = await alternate(sides, ROUNDS);
    return [
      toMeasure({
        measure: "verified rows of the audit log",
        unit: "/s",
        ours: verify,
        baseline: read,
        against: "the same rows, read only",
        bound: { kind: "at_least", amount: 100_000 },
      }),
    ];
  },
};

async function fill({ db }: Pick<Database, "db">): Promise<void> {
  for (let done = 0; done < ROWS; done += ROWS_AT_ONCE) {
    const rows = Array.from({ length: ROWS_AT_ONCE }, (_, index) =>
      toAuditValues({
        scope: SCOPE,
        actor: { kind: "platform_key", id: "01900000-0000-7000-8000-00000000000a", name: "gateway" },
        action: "engine.start_requested",
        userId: `user-${(done + index) % 1_000}`,
        engineId: "01900000-0000-7000-8000-00000000000b",
        requestId: `01900000-0000-7000-8000-${String(done + index).padStart(12, "0")}`,
        metadata: { desired: "running", status: "stopped", generation: index },
      }),
    );
    await appendAuditRows(db, rows);
  }
}
