import { Agent, type Dispatcher } from "undici";

const CONNECT_TIMEOUT_MS = 10_000;
/** The shortest time that undici takes. Only engines that announced to keep connections get idle ones. */
const UNANNOUNCED_KEEP_MS = 1;
const KEEP_MAX_MS = 10_000;
/** An engine may close an idle connection exactly when its announced time ends, so we stop using it this much earlier. */
const KEEP_MARGIN_MS = 2_000;

/**
 * The connections to all engines. Each call has a connection to itself, so that it never waits behind a stream. A later
 * call uses the connection again only within the time that the engine announced (`Keep-Alive: timeout=…`). The reason:
 * a request on a connection that is being closed has an unknown outcome. undici's own timeouts are off, because they
 * also run between the chunks of a quiet stream; the callers' signals are the only clocks.
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
  /** By base URL. The number of ports bounds them. */
  readonly #kept = new Set<string>();

  dispatch(request: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): void {
    this.#agent.dispatch(request, handler);
  }

  /**
   * Whether the engine's last answer announced that it keeps connections. If not, send a request that must not be lost
   * with `reset`, on a connection of its own. A health probe may be lost, so it is how an announcement is found out.
   */
  isKept(endpoint: string): boolean {
    return this.#kept.has(endpoint);
  }

  /** Call it with the `Keep-Alive` header of each answer to a request that was sent without `reset`. */
  noteAnnouncement(endpoint: string, keepAlive: string | string[] | undefined): void {
    const seconds = Number(/timeout=(\d{1,9})/i.exec(String(keepAlive ?? ""))?.[1] ?? 0);
    if (seconds * 1_000 > KEEP_MARGIN_MS) this.#kept.add(endpoint);
    else this.#kept.delete(endpoint);
  }

  /** Ends every connection, and with them the calls that still run. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#agent.destroy();
  }
}
