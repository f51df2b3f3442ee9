import { Deadline } from "../time/deadline.ts";
import type { EngineConnections } from "./connections.ts";
import { exchangeWithEngine } from "./exchange.ts";
import { parseObject } from "./parse-object.ts";

const HEALTH_MAX_BYTES = 64 * 1024;
const EXCERPT_MAX_LENGTH = 300;

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
    const why = deadline.hasPassed ? `no answer within ${options.timeoutMs} ms` : result.why;
    return { ready: false, why };
  }
  const body = parseObject(result.text);
  if (result.status === 200 && body?.["status"] === "ok") return { ready: true, body };
  return { ready: false, why: `/health answered ${result.status}: ${toExcerpt(result.text)}` };
}

/** The beginning of an answer on one line, enough to recognise it in a log. */
function toExcerpt(text: string): string {
  const line = text
    .slice(0, EXCERPT_MAX_LENGTH)
    .replaceAll(/[\s\p{Cc}]+/gu, " ")
    .trim();
  return line === "" ? "an empty body" : line.toWellFormed();
}
