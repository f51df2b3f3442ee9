import { Agent } from "undici";

const CONNECT_TIMEOUT_MS = 10_000;
/** As short as it can be; see `isKept` for who gets that far. */
const UNANNOUNCED_KEEP_MS = 1;
const KEEP_MAX_MS = 10_000;
/** An engine may close an idle connection on the second; one that is used so long before is still there. */
const KEEP_MARGIN_MS = 2_000;

/**
 * The connections to all engines. A call has one to itself, so that it queues behind no stream, and leaves it to the
 * next call only for as long as the engine has announced (`Keep-Alive: timeout=…`) to keep it open: a request on a
 * connection that is being closed has an outcome that nobody knows. The callers' signals are the only clocks:
 * undici's would also run between the chunks of a quiet stream.
 */
export const engineConnections = new Agent({
  pipelining: 1,
  headersTimeout: 0,
  bodyTimeout: 0,
  connect: { timeout: CONNECT_TIMEOUT_MS },
  keepAliveTimeout: UNANNOUNCED_KEEP_MS,
  keepAliveMaxTimeout: KEEP_MAX_MS,
  keepAliveTimeoutThreshold: KEEP_MARGIN_MS,
});

/** By base URL; there are no more of them than ports. */
const kept = new Set<string>();

/**
 * Whether the engine has announced, in its last answer, to keep connections for a while. To one that has not, a
 * request that must not be lost goes with `reset`, on a connection of its own: nobody knows when it closes others.
 * Asking for its health, which may be lost, is how that is found out.
 */
export function isKept(endpoint: string): boolean {
  return kept.has(endpoint);
}

/** To be called with the answer to a request that did not ask for the connection to be closed. */
export function noteAnnouncement(endpoint: string, keepAlive: string | string[] | undefined): void {
  const seconds = Number(/timeout=(\d{1,9})/i.exec(String(keepAlive ?? ""))?.[1] ?? 0);
  if (seconds * 1_000 > KEEP_MARGIN_MS) kept.add(endpoint);
  else kept.delete(endpoint);
}
