import { findSchemaState } from "../../../db/migrate.ts";
import type { BaseContext } from "../../context.ts";
import type { DrainState } from "../../replicas/drain-state.ts";
import type { EngineRuntime } from "../../runtime/engine-runtime.ts";
import { toErrorMessage } from "../../errors.ts";

export const SUBSYSTEM_STATES = ["ok", "degraded", "draining", "failed"] as const;
export type SubsystemState = (typeof SUBSYSTEM_STATES)[number];

export interface Readiness {
  ok: boolean;
  subsystems: Record<string, SubsystemState>;
}

type ReadinessContext = Pick<BaseContext, "raw" | "log"> & { runtime: EngineRuntime; drain: DrainState };

const CHECK_TIMEOUT_MS = 3_000;
/** Anybody may ask, so one look serves everybody who asks within this time. */
const LOOK_AGE_MS = 1_000;

/** Looks at what a call needs. A dead runtime only degrades: a balancer would cut every stream over it. */
export function openReadiness(ctx: ReadinessContext): () => Promise<Readiness> {
  const schema = shareLook(ctx, "database", async () => findSchemaState(ctx.raw));
  const runtime = shareLook(ctx, "runtime", async () => ctx.runtime.check());
  return async () => {
    const [schemaLook, runtimeLook] = await Promise.all([schema(), runtime()]);
    const subsystems = {
      process: ctx.drain.draining ? "draining" : "ok",
      database: schemaLook.ok ? "ok" : "failed",
      migrations: toMigrationState(schemaLook),
      runtime: runtimeLook.ok ? "ok" : "degraded",
    } as const satisfies Record<string, SubsystemState>;
    return { ok: Object.values(subsystems).every(isUsable), subsystems };
  };
}

function isUsable(state: SubsystemState): boolean {
  return state === "ok" || state === "degraded";
}

type Look<Value> = { ok: true; value: Value } | { ok: false };

function toMigrationState(look: Look<Awaited<ReturnType<typeof findSchemaState>>>): SubsystemState {
  if (!look.ok || look.value === "pending") return "failed";
  // During a rolling deploy the newer replicas have migrated already; that must not take this one out of service.
  return look.value === "unknown" ? "degraded" : "ok";
}

/** One look at a time, however many ask and however long it hangs. */
function shareLook<Value>(
  ctx: Pick<BaseContext, "log">,
  subsystem: string,
  look: () => Promise<Value>,
): () => Promise<Look<Value>> {
  let running: Promise<Look<Value>> | undefined;
  let last: { look: Look<Value>; until: number } | undefined;

  const run = async (): Promise<Look<Value>> => {
    let found: Look<Value>;
    try {
      found = { ok: true, value: await look() };
    } catch (error) {
      ctx.log.warn({ subsystem, error: toErrorMessage(error) }, "readiness check failed");
      found = { ok: false };
    }
    last = { look: found, until: performance.now() + LOOK_AGE_MS };
    running = undefined;
    return found;
  };
  return async () => {
    if (last && performance.now() < last.until) return last.look;
    running ??= run();
    const patience = Promise.withResolvers<Look<Value>>();
    const timer = setTimeout(() => patience.resolve({ ok: false }), CHECK_TIMEOUT_MS);
    const found = await Promise.race([running, patience.promise]);
    clearTimeout(timer);
    return found;
  };
}
