import type { EngineRow } from "../../db/engines.ts";
import type { AppContext } from "../context.ts";
import type { ContainerObservation } from "../runtime/engine-runtime.ts";
import { toEndpoint } from "./engine-endpoint.ts";
import { probeHealth } from "./engine-http.ts";
import type { HealthObservation, Observation } from "./plan-engine.ts";

type ObserveContext = Pick<AppContext, "runtime" | "config">;

/** Asks the runtime, and the engine itself where it should answer. Throws RuntimeFailure: then nothing is known. */
export async function observeEngine(ctx: ObserveContext, row: EngineRow): Promise<Observation> {
  const containers = await ctx.runtime.observe(row.id);
  const current = containers.find((container) => container.incarnation === row.incarnation);
  const hasData = needsData(row, current) ? await ctx.runtime.hasData(row.volumeName) : true;
  // Absence is only what the daemon that this database knows says: another one has none of our containers, either.
  if (current === undefined || !hasData) await ctx.runtime.check();
  const health = needsHealth(row, current) ? await observeHealth(ctx, row) : null;
  return { containers, hasData, health };
}

/** GET /health, once; a signal that aborts makes it "not ready". */
export async function observeHealth(
  ctx: Pick<AppContext, "config">,
  row: EngineRow,
  signal?: AbortSignal,
): Promise<HealthObservation> {
  const endpoint = toEndpoint(row);
  if (endpoint === null) return { ready: false, why: "it has no port" };
  const probe = await probeHealth(endpoint, {
    timeoutMs: ctx.config.healthTimeoutMs,
    ...(signal === undefined ? {} : { signal }),
  });
  if (!probe.ready) return probe;
  const uptime = probe.body["uptime_seconds"];
  return { ready: true, uptimeMs: typeof uptime === "number" ? uptime * 1000 : Infinity };
}

function needsData(row: EngineRow, current: ContainerObservation | undefined): boolean {
  return row.desired === "destroyed" || row.status === "failed" || current === undefined;
}

function needsHealth(row: EngineRow, current: ContainerObservation | undefined): boolean {
  const asked = row.status === "provisioning" || row.status === "starting" || row.status === "running";
  return asked && row.desired === "running" && current?.state === "running";
}
