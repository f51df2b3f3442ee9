import { Deadline } from "../time/deadline.ts";
import type { EngineConnections } from "./connections.ts";
import { exchangeWithEngine } from "./exchange.ts";
import { explainNoHealth, explainNotReady } from "./explain-health.ts";
import { parseObject } from "./parse-object.ts";

const HEALTH_MAX_BYTES = 64 * 1024;

export type HealthProbe =
  { ready: true; body: Readonly<Record<string, unknown>> } | { ready: false; why: string };

/** Sends one `GET /health`. Only status 200 with JSON whose `status` is "ok" counts as ready. Never throws. */
export async function probeHealth(
  connections: EngineConnections,
  endpoint: string,
  options: { timeoutMs: number; signal?: AbortSignal },
): Promise<HealthProbe> {
  using deadline = new Deadline(options.timeoutMs, [options.signal]);
  const result = await exchangeWithEngine(connections, endpoint, {
    method: "GET",
    path: "/health",
    maxBytes: HEALTH_MAX_BYTES,
    signal: deadline.signal,
  });
  if (result.kind === "failed") {
    const why = deadline.hasPassed
      ? `no answer within ${options.timeoutMs} ms`
      : explainNoHealth(result, endpoint);
    return { ready: false, why };
  }
  const body = parseObject(result.text);
  if (result.status === 200 && body?.["status"] === "ok") return { ready: true, body };
  return { ready: false, why: explainNotReady(result, connections.secrets) };
}
