import { KeyStates } from "../../server/keys/key-states.ts";
import { openKeyring } from "../../server/keys/keyring.ts";
import { openDatabase } from "../../db/client.ts";
import { AdmittedEngine, EngineSchema } from "../../server/api/routers/engine-schemas.ts";
import { openHttpServer } from "../../server/api/http/http-server.ts";
import { platformProcedure } from "../../server/api/trpc/procedures.ts";
import { appRouter } from "../../server/api/routers/router.ts";
import { systemClock } from "../../server/time/clock.ts";
import { parseConfig } from "../../server/config/config.ts";
import type { AppContext } from "../../server/compose.ts";
import { Metrics } from "../../server/metrics.ts";
import { DrainState } from "../../server/replicas/drain-state.ts";
import { LeaseGuard } from "../../server/replicas/lease-guard.ts";
import { openLog } from "../../server/log.ts";
import { z } from "zod";

/*
 * The service's whole API with an `engines.get` and an `engines.admit` that do nothing: the same server, request log, keys, database and
 * schemas.
 */

const ENGINE: z.infer<typeof EngineSchema> = {
  engineId: "0199a0c0-0000-7000-8000-000000000000",
  userId: "ada",
  status: "running",
  statusReason: null,
  sleepDepth: null,
  desired: "running",
  generation: 1,
  image: "reference",
  imageId: "reference",
  url: "http://127.0.0.1:9001",
  keyPrefix: "ehe_abcd",
  bootMs: 300,
  restarts: 0,
  nextRestartAt: null,
  drift: false,
  createdAt: "2026-01-01T00:00:00.000Z",
  updatedAt: "2026-01-01T00:00:00.000Z",
  lastHealthAt: "2026-01-01T00:00:00.000Z",
  lastActivityAt: null,
};

const doNothing = platformProcedure("read")
  .input(z.strictObject({ userId: z.string() }))
  .output(EngineSchema)
  .query(() => ENGINE);
const admitNothing = platformProcedure("turns")
  .input(z.strictObject({ userId: z.string() }))
  .output(AdmittedEngine)
  .mutation(() => ({ admitted: true, engine: ENGINE }) as const);
// Replaces the procedures in the real router, so that nothing else differs.
Object.assign(appRouter._def.procedures, { "engines.get": doNothing, "engines.admit": admitNothing });

const { config } = parseConfig(process.env);
const log = openLog(config.log);
const url = config.databaseUrl ?? "";
await using database = openDatabase({ url, poolSize: config.databasePool, applicationName: "no-op" });
const { db, raw } = database;
// Only the parts that the API uses: this program has no engines and no turns.
const ctx = {
  config,
  log,
  db,
  raw,
  clock: systemClock,
  keyStates: new KeyStates({
    db,
    log,
    clock: systemClock,
    keyring: openKeyring(config.masterKeys ?? ""),
    // Nobody changes rows during a benchmark.
    tamperReports: { report: () => undefined },
  }),
  drain: new DrainState(),
  metrics: new Metrics(),
  lease: new LeaseGuard({ holdsLease: () => true }),
} as Partial<AppContext> as AppContext;
await using server = await openHttpServer(ctx, { host: "127.0.0.1", port: 0 });
log.info({ url: server.url }, "listening");
await new Promise((resolve) => process.once("SIGTERM", resolve));
