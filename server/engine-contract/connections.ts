import { buildConnector, Client, type Dispatcher } from "undici";
import { Secrets } from "../secrets/secrets.ts";
import { EarlyConnections } from "./early-connections.ts";

const CONNECT_TIMEOUT_MS = 10_000;
const CLOSED = new Error("the service closed the connection");

/**
 * Opens the connections to all engines. Each call has a connection of its own, which ends with the call.
 *
 * HTTP/1.1 answers carry no name of their request. So on a connection that is used again, nothing tells a late second
 * answer from the answer to the next call. A kept connection can also outlive its engine, whose port then belongs to
 * another one.
 *
 * undici's own timeouts are off, because they also run between the chunks of a quiet stream. The callers' signals
 * limit the time of a call.
 */
export class EngineConnections implements AsyncDisposable {
  /** What the words of engines must not carry to callers, logs and the database. */
  readonly secrets: Secrets;
  readonly #running = new Set<CallConnection>();
  /** Connections of calls that do not have their engine yet. */
  readonly early = new EarlyConnections(buildConnector({ timeout: CONNECT_TIMEOUT_MS, allowH2: false }));

  constructor(secrets = new Secrets([])) {
    this.secrets = secrets;
  }

  /** The connection for one call. Throws if the endpoint is no URL. */
  open(endpoint: string): CallConnection {
    const client = new Client(endpoint, {
      pipelining: 1,
      headersTimeout: 0,
      bodyTimeout: 0,
      allowH2: false,
      connect: this.early.connect,
    });
    return new CallConnection(client, this.#running);
  }

  /** Closes every connection. Calls that still run fail. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.early.close();
    await Promise.all([...this.#running].map(async (connection) => connection.close()));
  }
}

/** The connection of one call. */
export class CallConnection {
  readonly #client: Client;
  readonly #running: Set<CallConnection>;

  constructor(client: Client, running: Set<CallConnection>) {
    this.#client = client;
    this.#running = running;
    running.add(this);
  }

  /** Connects and sends the request; call it once. `reset` announces to the engine that the connection ends with it. */
  send(request: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): void {
    this.#client.dispatch({ ...request, reset: true }, handler);
  }

  /** Call it after the last event of the call. undici closes the connection by then. */
  ended(): void {
    this.#running.delete(this);
  }

  /** Ends the call in any stage. */
  async close(): Promise<void> {
    this.ended();
    await this.#client.destroy(CLOSED);
  }
}
