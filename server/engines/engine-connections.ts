import { Agent } from "undici";

const CONNECT_TIMEOUT_MS = 10_000;
/** Nobody knows how long an engine that does not say so keeps a connection: it is not used again. */
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
