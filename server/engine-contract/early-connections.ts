import type { Socket } from "node:net";
import { LRUCache } from "lru-cache";
import type { buildConnector } from "undici";

type Connect = buildConnector.connector;
type ConnectOptions = buildConnector.Options;
type OnOpened = buildConnector.Callback;

const MAX_REMEMBERED = 10_000;

/**
 * Connections that are opened before it is certain that a call needs them: a call first asks the database for its engine,
 * and meanwhile connects to the address where that engine was last. Nothing is sent before the database has answered. If
 * the engine is elsewhere by then, the connection is closed unused.
 */
export class EarlyConnections {
  readonly #connect: Connect;
  /** Where the engine of a user was last. */
  readonly #endpoints = new LRUCache<string, string>({ max: MAX_REMEMBERED });
  /** By `host:port`. */
  readonly #unused = new Map<string, Set<EarlyConnection>>();

  constructor(connect: Connect) {
    this.#connect = connect;
  }

  /** Connects to the last endpoint of the user's engine, if it is known. Dispose it when the call has its connection. */
  open(productId: string, userId: string): EarlyCall {
    const user = `${productId}/${userId}`;
    const known = this.#endpoints.get(user);
    const connection = known === undefined ? undefined : this.#add(new URL(known));
    return {
      remember: (endpoint) => this.#endpoints.set(user, endpoint),
      [Symbol.dispose]: () => connection?.drop(),
    };
  }

  /** A connector for undici: it takes an early connection to that address if there is one. */
  readonly connect = (options: ConnectOptions, callback: OnOpened): void => {
    for (const connection of this.#unused.get(toAddress(options)) ?? []) {
      if (connection.take(callback)) return;
    }
    this.#connect(options, callback);
  };

  /** Closes the unused connections. */
  close(): void {
    for (const connections of this.#unused.values()) for (const each of connections) each.drop();
  }

  #add({ protocol, hostname, host, port }: URL): EarlyConnection {
    const options = { protocol, hostname, host, port };
    const address = toAddress(options);
    const unused = this.#unused.get(address) ?? new Set();
    this.#unused.set(address, unused);
    const connection = new EarlyConnection(() => {
      unused.delete(connection);
      if (unused.size === 0 && this.#unused.get(address) === unused) this.#unused.delete(address);
    });
    unused.add(connection);
    this.#connect(options, connection.onOpened);
    return connection;
  }
}

/** The early connection of one call. Disposing closes it, unless a call has taken it. */
export interface EarlyCall extends Disposable {
  /** Where the engine is now, for the next call. */
  remember(endpoint: string): void;
}

class EarlyConnection {
  readonly #onGone: () => void;
  #socket: Socket | undefined;
  #taker: OnOpened | undefined;
  /** Taken or closed. */
  #isGone = false;

  constructor(onGone: () => void) {
    this.#onGone = onGone;
  }

  readonly onOpened: OnOpened = (...result) => {
    const [error, socket] = result;
    const taker = this.#taker;
    this.#taker = undefined;
    if (taker) taker(...result);
    else if (this.#isGone) socket?.destroy();
    else if (error) this.drop();
    else this.#socket = socket ?? undefined;
  };

  /**
   * False: the connection cannot be used. One that has received bytes has an answer without a request. One that is not
   * open yet and fails later fails the call, as a connection of the call's own would.
   */
  take(taker: OnOpened): boolean {
    const socket = this.#socket;
    if (socket && (socket.destroyed || socket.readableEnded || socket.readableLength > 0)) {
      this.drop();
      return false;
    }
    this.#leave();
    this.#socket = undefined;
    if (socket) queueMicrotask(() => taker(null, socket));
    else this.#taker = taker;
    return true;
  }

  drop(): void {
    if (this.#isGone) return;
    this.#leave();
    this.#socket?.destroy();
  }

  #leave(): void {
    this.#isGone = true;
    this.#onGone();
  }
}

function toAddress({ hostname, port }: Pick<ConnectOptions, "hostname" | "port">): string {
  return `${hostname}:${port}`;
}
