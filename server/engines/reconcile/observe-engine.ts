import type { EngineRow, EngineRowAt } from "../../../db/engines.ts";
import { probeHealth } from "../../engine-contract/health.ts";
import type { ContainerObservation } from "../../runtime/engine-runtime.ts";
import { findCurrent, type HealthObservation, type Observation } from "./plan-engine.ts";
import type { ReconcileContext } from "./reconcile-context.ts";

type ProbeContext = Pick<ReconcileContext, "config" | "connections">;

/** A healthy answer during the wait for a boot, and the process that was expected to give it. */
export interface BootAnswer {
  processIdentity: string;
  health: HealthObservation;
}

/**
 * Observes the runtime, and probes the engine if it should answer. Throws RuntimeFailure: then nothing is known. A boot
 * answer replaces the probe if its process still runs: a second probe of a fresh process takes 13 ms or more.
 */
export async function observeEngine(
  ctx: ProbeContext & Pick<ReconcileContext, "runtime" | "memoryKills">,
  row: EngineRowAt,
  answer?: BootAnswer,
): Promise<Observation> {
  const containers = await ctx.runtime.observe(row.id);
  const current = findCurrent(row, containers);
  const hasData = usesData(row, current) ? await ctx.runtime.hasData(row.volumeName) : true;
  // What another daemon shows counts for nothing: its absences are no absences, and no step is applied to it. The check
  // comes last, so that it also covers the calls before it.
  await ctx.runtime.check();
  const seen = { containers, hasData, outOfMemory: ctx.memoryKills.hasKilled(row) };
  if (!shouldAnswer(row, current)) return { ...seen, health: null };
  const isAnswered = answer?.processIdentity === current.processIdentity;
  const health = isAnswered ? answer.health : await observeHealth(ctx, current.endpoint);
  return { ...seen, health };
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

/** Only plans for such an engine create or remove a volume. */
function usesData(row: EngineRow, current: ContainerObservation | undefined): boolean {
  return current === undefined || row.desired === "destroyed" || row.status === "failed";
}

function shouldAnswer(
  row: EngineRow,
  current: ContainerObservation | undefined,
): current is ContainerObservation {
  const mayBeReady = row.status === "provisioning" || row.status === "starting" || row.status === "running";
  return mayBeReady && row.desired === "running" && current?.state === "running";
}
