import { Deadline } from "../time/deadline.ts";
import type { EngineConnections } from "./connections.ts";
import { exchangeWithEngine } from "./exchange.ts";

const HEALTH_MAX_BYTES = 64 * 1024;
const EXCERPT_MAX_LENGTH = 300;

export interface HealthBody {
  status: "ok";
  [field: string]: unknown;
}
export type HealthProbe = { ready: true; body: HealthBody } | { ready: false; why: string };

export interface ProbeHealthOptions {
  timeoutMs: number;
  signal?: AbortSignal;
}

/** Sends one `GET /health`. Only status 200 with JSON whose `status` is "ok" counts as ready. Never throws. */
export async function probeHealth(
  connections: EngineConnections,
  endpoint: string,
  options: ProbeHealthOptions,
): Promise<HealthProbe> {
  using deadline = new Deadline(options.timeoutMs, [options.signal]);
  const result = await exchangeWithEngine(connections, endpoint, {
    method: "GET",
    path: "/health",
    maxBytes: HEALTH_MAX_BYTES,
    signal: deadline.signal,
  });
  if (result.kind === "failed") {
    const why = deadline.hasPassed ? `no answer within ${options.timeoutMs} ms` : result.why;
    return { ready: false, why };
  }
  const body = parseHealth(result.text);
  if (result.status === 200 && body !== undefined) return { ready: true, body };
  return { ready: false, why: `/health answered ${result.status}: ${toExcerpt(result.text)}` };
}

function parseHealth(text: string): HealthBody | undefined {
  try {
    const body: unknown = JSON.parse(text);
    const isOk = typeof body === "object" && body !== null && "status" in body && body.status === "ok";
    return isOk ? (body as HealthBody) : undefined;
  } catch {
    // An engine that does not answer with JSON is not ready.
    return undefined;
  }
}

/** The beginning of an answer on one line, enough to recognise it in a log. */
function toExcerpt(text: string): string {
  const line = text
    .slice(0, EXCERPT_MAX_LENGTH)
    .replaceAll(/[\s\p{Cc}]+/gu, " ")
    .trim();
  return line === "" ? "an empty body" : line.toWellFormed();
}
