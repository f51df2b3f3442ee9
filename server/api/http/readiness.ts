import { checkWritable } from "../../../db/check-server.ts";
import { findSchemaState } from "../../../db/migrate.ts";
import type { BaseContext } from "../../context.ts";
import type { DrainState } from "../../replicas/drain-state.ts";
import type { DataDir } from "../../boot/data-dir.ts";
import type { EngineRuntime } from "../../runtime/engine-runtime.ts";
import type { LogOutput } from "../../log-output.ts";
import { toErrorMessage } from "../../errors.ts";

export const SUBSYSTEM_STATES = ["ok", "degraded", "draining", "failed"] as const;
export type SubsystemState = (typeof SUBSYSTEM_STATES)[number];

export interface Readiness {
  ok: boolean;
  subsystems: Record<string, SubsystemState>;
}

type ReadinessContext = Pick<BaseContext, "raw" | "log"> & {
  runtime: EngineRuntime;
  drain: DrainState;
  output?: Pick<LogOutput, "error"> | undefined;
  dataDir?: DataDir | undefined;
};

const CHECK_TIMEOUT_MS = 3_000;
/** How long a check is reused. Readiness needs no key, so callers must not be able to load the database with it. */
const REUSE_MS = 1_000;

/** Checks the subsystems that calls need. A dead runtime only degrades, or a balancer would cut every stream. */
export function openReadiness(ctx: ReadinessContext): () => Promise<Readiness> {
  const schema = shareCheck(ctx, "database", async () => {
    await checkWritable(ctx.raw);
    return findSchemaState(ctx.raw);
  });
  const runtime = shareCheck(ctx, "runtime", async () => ctx.runtime.check());
  const { dataDir } = ctx;
  const storage = dataDir && shareCheck(ctx, "dataDir", () => dataDir.check());
  return async () => {
    const [schemaState, runtimeState, stored] = await Promise.all([schema(), runtime(), storage?.()]);
    const subsystems = {
      process: ctx.drain.draining ? "draining" : "ok",
      database: schemaState.ok ? "ok" : "failed",
      migrations: toMigrationState(schemaState),
      runtime: runtimeState.ok ? "ok" : "degraded",
      dataDir: stored?.ok === false ? (dataDir?.holdsDatabase ? "failed" : "degraded") : "ok",
      log: ctx.output?.error === undefined ? "ok" : "degraded",
    } as const satisfies Record<string, SubsystemState>;
    return { ok: Object.values(subsystems).every(isUsable), subsystems };
  };
}

function isUsable(state: SubsystemState): boolean {
  return state === "ok" || state === "degraded";
}

type Checked<Value> = { ok: true; value: Value } | { ok: false };

function toMigrationState(checked: Checked<Awaited<ReturnType<typeof findSchemaState>>>): SubsystemState {
  if (!checked.ok || checked.value === "pending") return "failed";
  // In a rolling deploy newer replicas have migrated already. That must not take this replica out of service.
  return checked.value === "unknown" ? "degraded" : "ok";
}

/** Runs one check at a time, whatever the number of callers. A caller waits for at most `CHECK_TIMEOUT_MS`. */
function shareCheck<Value>(
  ctx: Pick<BaseContext, "log">,
  subsystem: string,
  check: () => Promise<Value>,
): () => Promise<Checked<Value>> {
  let running: Promise<Checked<Value>> | undefined;
  let last: { checked: Checked<Value>; until: number } | undefined;

  let failure: string | undefined;

  /** Logs each change once. A probe asks every few seconds, and an outage may last for hours. */
  const report = (error: string | undefined) => {
    if (error === failure) return;
    failure = error;
    if (error === undefined) ctx.log.info({ subsystem }, "readiness check works again");
    else ctx.log.warn({ subsystem, error }, "readiness check failed");
  };
  const run = async (): Promise<Checked<Value>> => {
    let found: Checked<Value>;
    try {
      found = { ok: true, value: await check() };
      report(undefined);
    } catch (error) {
      found = { ok: false };
      report(toErrorMessage(error));
    }
    last = { checked: found, until: performance.now() + REUSE_MS };
    running = undefined;
    return found;
  };
  return async () => {
    if (last && performance.now() < last.until) return last.checked;
    running ??= run();
    const patience = Promise.withResolvers<Checked<Value>>();
    const timer = setTimeout(() => patience.resolve({ ok: false }), CHECK_TIMEOUT_MS);
    const found = await Promise.race([running, patience.promise]);
    clearTimeout(timer);
    return found;
  };
}
