import type { EngineRow } from "../../../db/engines.ts";
import type { ReconcileContext } from "./reconcile-context.ts";
import { toProcessIdentity, type ContainerObservation } from "../../runtime/engine-runtime.ts";
import { toEndpoint } from "../model/engine-endpoint.ts";
import { probeHealth } from "../../engine-contract/health.ts";
import type { HealthObservation, Observation } from "./plan-engine.ts";

type ObserveContext = Pick<ReconcileContext, "config" | "runtime" | "connections">;

/** What a process answered while somebody waited for its boot. */
export interface ProbeAnswer {
  /** As it was seen before; see `toProcessIdentity`. */
  process: string;
  health: HealthObservation;
}

/**
 * Asks the runtime, and the engine itself where it should answer. `answer` stands for the engine's own where the
 * same process is seen after it as before. Throws RuntimeFailure: then nothing is known.
 */
export async function observeEngine(
  ctx: ObserveContext,
  row: EngineRow,
  answer?: ProbeAnswer,
): Promise<Observation> {
  // Where no container is on record none is expected, and what that takes is asked at once.
  const expectsNone = row.containerId === null;
  const [containers, data] = await Promise.all([
    ctx.runtime.observe(row.id),
    expectsNone || needsData(row) ? ctx.runtime.hasData(row.volumeName) : undefined,
    expectsNone ? ctx.runtime.check() : undefined,
  ]);
  const current = findCurrent(row, containers);
  const hasData = data ?? (current === undefined ? await ctx.runtime.hasData(row.volumeName) : true);
  // Absence is only what the daemon that this database knows says: another one has none of our containers, either.
  if (!expectsNone && (current === undefined || !hasData)) await ctx.runtime.check();
  const isAnswered = current !== undefined && answer?.process === toProcessIdentity(current);
  const known = isAnswered ? answer.health : undefined;
  const health = needsHealth(row, current) ? (known ?? (await observeHealth(ctx, row))) : null;
  return { containers, hasData, health };
}

/** What there is of an engine that nobody has asked the runtime for. Throws RuntimeFailure like any look. */
export async function observeNothing(ctx: ObserveContext): Promise<Observation> {
  await ctx.runtime.check();
  return { containers: [], hasData: false, health: null };
}

/** The container of the incarnation that the row wants. */
export function findCurrent(
  row: EngineRow,
  containers: readonly ContainerObservation[],
): ContainerObservation | undefined {
  return containers.find((container) => container.incarnation === row.incarnation);
}

/** GET /health, once; a signal that aborts makes it "not ready". */
export async function observeHealth(
  ctx: Pick<ReconcileContext, "config" | "connections">,
  row: EngineRow,
  signal?: AbortSignal,
): Promise<HealthObservation> {
  const endpoint = toEndpoint(row);
  if (endpoint === null) return { ready: false, why: "it has no port" };
  const probe = await probeHealth(ctx.connections, endpoint, {
    timeoutMs: ctx.config.healthTimeoutMs,
    ...(signal === undefined ? {} : { signal }),
  });
  if (!probe.ready) return probe;
  const uptime = probe.body["uptime_seconds"];
  return { ready: true, uptimeMs: typeof uptime === "number" ? uptime * 1000 : Infinity };
}

function needsData(row: EngineRow): boolean {
  return row.desired === "destroyed" || row.status === "failed";
}

function needsHealth(row: EngineRow, current: ContainerObservation | undefined): boolean {
  const asked = row.status === "provisioning" || row.status === "starting" || row.status === "running";
  return asked && row.desired === "running" && current?.state === "running";
}
