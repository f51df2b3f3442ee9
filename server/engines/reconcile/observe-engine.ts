import type { EngineRow } from "../../../db/engines.ts";
import { probeHealth } from "../../engine-contract/health.ts";
import type { ContainerObservation } from "../../runtime/engine-runtime.ts";
import { findCurrent, type HealthObservation, type Observation } from "./plan-engine.ts";
import type { ReconcileContext } from "./reconcile-context.ts";

type ProbeContext = Pick<ReconcileContext, "config" | "connections">;

/** Observes the runtime, and probes the engine if it should answer. Throws RuntimeFailure: then nothing is known. */
export async function observeEngine(
  ctx: ProbeContext & Pick<ReconcileContext, "runtime">,
  row: EngineRow,
): Promise<Observation> {
  const [containers, hasData] = await Promise.all([
    ctx.runtime.observe(row.id),
    ctx.runtime.hasData(row.volumeName),
  ]);
  const current = findCurrent(row, containers);
  // Another daemon has none of our containers. So absence counts only if the daemon is the one with our marker.
  if (current === undefined || !hasData) await ctx.runtime.check();
  const health = shouldAnswer(row, current) ? await observeHealth(ctx, current.endpoint) : null;
  return { containers, hasData, health };
}

/** One GET /health. Not ready: also when there is no endpoint yet, or when the signal aborts. */
export async function observeHealth(
  ctx: ProbeContext,
  endpoint: string | null,
  signal?: AbortSignal,
): Promise<HealthObservation> {
  if (endpoint === null) return { ready: false, why: "the runtime has assigned no address" };
  const probe = await probeHealth(ctx.connections, endpoint, {
    timeoutMs: ctx.config.healthTimeoutMs,
    ...(signal === undefined ? {} : { signal }),
  });
  if (!probe.ready) return probe;
  const uptime = probe.body["uptime_seconds"];
  return { ready: true, uptimeMs: typeof uptime === "number" ? uptime * 1000 : Infinity };
}

function shouldAnswer(
  row: EngineRow,
  current: ContainerObservation | undefined,
): current is ContainerObservation {
  const mayBeReady = row.status === "provisioning" || row.status === "starting" || row.status === "running";
  return mayBeReady && row.desired === "running" && current?.state === "running";
}
