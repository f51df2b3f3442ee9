import { Agent, type Dispatcher } from "undici";

const CONNECT_TIMEOUT_MS = 10_000;
/** undici's minimum. An engine that announced no keep-alive gets no idle connections. */
const UNANNOUNCED_KEEP_MS = 1;
const KEEP_MAX_MS = 10_000;
/** An engine may close an idle connection exactly when its announced time ends, so we stop using it this much earlier. */
const KEEP_MARGIN_MS = 2_000;

/**
 * The connections to all engines.
 *
 * A running request has its connection to itself, so it never waits behind a stream. A later request uses the
 * connection again only within the time that the engine announced (`Keep-Alive: timeout=…`): a request on a
 * connection that is just being closed has an unknown outcome.
 *
 * undici's own timeouts are off, because they also run between the chunks of a quiet stream. The callers' signals
 * limit the time of a request.
 */
export class EngineConnections implements AsyncDisposable {
  readonly #agent = new Agent({
    pipelining: 1,
    headersTimeout: 0,
    bodyTimeout: 0,
    connect: { timeout: CONNECT_TIMEOUT_MS },
    keepAliveTimeout: UNANNOUNCED_KEEP_MS,
    keepAliveMaxTimeout: KEEP_MAX_MS,
    keepAliveTimeoutThreshold: KEEP_MARGIN_MS,
  });
  /** Endpoints whose engine keeps connections open. The number of ports bounds the set. */
  readonly #keeping = new Set<string>();

  dispatch(request: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): void {
    this.#agent.dispatch(request, handler);
  }

  /**
   * True when the engine's last answer announced that it keeps connections open. If it did not, a request with effects
   * gets a new connection (`reset`). A health probe may fail without harm, so probes discover the announcement.
   */
  isKept(endpoint: string): boolean {
    return this.#keeping.has(endpoint);
  }

  /** Reads the `Keep-Alive` header of an answer. Call it for every request that was sent without `reset`. */
  noteAnnouncement(endpoint: string, keepAlive: string | string[] | undefined): void {
    const seconds = Number(/timeout=(\d{1,9})/i.exec(String(keepAlive ?? ""))?.[1] ?? 0);
    if (seconds * 1_000 > KEEP_MARGIN_MS) this.#keeping.add(endpoint);
    else this.#keeping.delete(endpoint);
  }

  /** Closes every connection. Requests that still run fail. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#agent.destroy();
  }
}
