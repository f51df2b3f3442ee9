import type { ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { toAddressGroup } from "./caller-address.ts";

/** How many connections beyond the bound are served for health checks only. */
const RESERVED = 32;
/** The part of the bound that one address may take with connections without a known key, once the bound is reached. */
const ADDRESS_SHARE = 1 / 4;

/**
 *   silent ──a complete head──▶ busy ──all answered──▶ stranger, or known if a key was accepted ──a head──▶ busy
 *
 * A `silent` connection has sent no complete request yet. A `stranger` or `known` connection is between two requests.
 * These three states are quiet, and only a quiet connection may be cut. `silent` and `stranger` have no known key.
 */
const QUIET_STATES = ["silent", "stranger", "known"] as const;
type QuietState = (typeof QUIET_STATES)[number];

interface Connection {
  readonly socket: Socket;
  readonly addressGroup: string;
  readonly pending: Set<ServerResponse>;
  state: QuietState | "busy";
  /** Whose key was accepted last. undefined: no key was accepted yet. */
  owner: string | undefined;
  /** Over the bound: it may ask for health only. */
  healthOnly: boolean;
  /** The last request was answered before its body had arrived. */
  wasAnsweredEarly: boolean;
}

/**
 * Bounds the connections, so that descriptors are left for the database, the engines and files.
 *
 * At the bound, a new connection takes the place of a quiet one: first the oldest that has sent no complete request, then
 * the oldest that never had an accepted key, then the one of a known caller that was quiet for longest. An address that
 * has many connections without a known key loses its own. If all are busy, the new connection may ask for health only.
 */
export class CallerConnections {
  readonly #max: number;
  readonly #all = new Map<Socket, Connection>();
  /** Each set is in the order in which its connections became quiet. */
  readonly #quiet = {
    silent: new Set<Connection>(),
    stranger: new Set<Connection>(),
    known: new Set<Connection>(),
  };
  readonly #quietHealthOnly = new Set<Connection>();
  /** By address group: the `silent` and `stranger` ones. */
  readonly #withoutKeyOf = new Map<string, Set<Connection>>();
  #healthOnlyCount = 0;
  #closed = 0;

  constructor(max: number) {
    this.#max = max;
  }

  get max(): number {
    return this.#max;
  }
  /** How many connections were closed or refused, because the bound was reached. */
  get closedCount(): number {
    return this.#closed;
  }

  /** Call it for each new connection. The caller answers and closes a refused one. */
  admit(socket: Socket): "admitted" | "refused" {
    const connection: Connection = {
      socket,
      addressGroup: toAddressGroup(socket.remoteAddress ?? "unknown"),
      pending: new Set(),
      state: "silent",
      owner: undefined,
      healthOnly: false,
      wasAnsweredEarly: false,
    };
    if (!this.#hasRoom() && !this.#close(this.#findOldest(connection.addressGroup))) {
      const hasPlace = this.#healthOnlyCount < RESERVED || this.#close(first(this.#quietHealthOnly));
      if (!hasPlace) {
        this.#closed += 1;
        return "refused";
      }
      connection.healthOnly = true;
      this.#healthOnlyCount += 1;
    }
    this.#all.set(socket, connection);
    this.#rest(connection, "silent");
    socket.once("close", () => this.#remove(connection));
    return "admitted";
  }

  /** Call it for each complete head of a request. Returns whether only health may be asked for. */
  begin(socket: Socket, response: ServerResponse): { healthOnly: boolean } {
    const connection = this.#all.get(socket);
    // Refused, and about to close.
    if (connection === undefined) return { healthOnly: true };
    this.#wake(connection);
    if (connection.healthOnly && this.#hasRoom()) this.#endHealthOnly(connection);
    connection.pending.add(response);
    connection.wasAnsweredEarly = false;
    return { healthOnly: connection.healthOnly };
  }

  /** Call it once for each response that `begin` got, when it has closed. */
  end(socket: Socket, response: ServerResponse): void {
    const connection = this.#all.get(socket);
    if (connection === undefined) return;
    connection.pending.delete(response);
    if (connection.pending.size === 0)
      this.#rest(connection, connection.owner === undefined ? "stranger" : "known");
  }

  /** A key of this owner, a product or an operator, came over this connection and was accepted. */
  noteKnown(socket: Socket, owner: string): void {
    const connection = this.#all.get(socket);
    if (connection !== undefined) connection.owner = owner;
  }

  /** The owner whose key was accepted last. undefined: no key was accepted yet, or the connection was closed. */
  ownerOf(socket: Socket): string | undefined {
    return this.#all.get(socket)?.owner;
  }

  noteAnsweredEarly(socket: Socket): void {
    const connection = this.#all.get(socket);
    if (connection !== undefined) connection.wasAnsweredEarly = true;
  }

  /** True if the client has its answer, and is still sending the body of that request. */
  isAnsweredEarly(socket: Socket): boolean {
    const connection = this.#all.get(socket);
    return connection?.wasAnsweredEarly === true && connection.pending.size === 0;
  }

  /** The responses that the client still waits for. */
  pendingOf(socket: Socket): ReadonlySet<ServerResponse> {
    return this.#all.get(socket)?.pending ?? new Set();
  }

  /**
   * Ends the connections that have not sent a byte. Clients open connections before they send a request, and Node counts
   * such a connection as busy, so that a close would wait for it.
   */
  endSilent(): void {
    for (const { socket } of this.#all.values()) if (socket.bytesRead === 0) socket.destroy();
  }

  #hasRoom(): boolean {
    return this.#all.size - this.#healthOnlyCount < this.#max;
  }

  #findOldest(addressGroup: string): Connection | undefined {
    const own = this.#withoutKeyOf.get(addressGroup);
    if (own !== undefined && own.size > this.#max * ADDRESS_SHARE) return first(own);
    for (const state of QUIET_STATES) {
      const oldest = first(this.#quiet[state]);
      if (oldest !== undefined) return oldest;
    }
    return undefined;
  }

  #close(oldest: Connection | undefined): boolean {
    if (oldest === undefined) return false;
    this.#closed += 1;
    this.#remove(oldest);
    oldest.socket.destroy();
    return true;
  }

  #rest(connection: Connection, state: QuietState): void {
    connection.state = state;
    if (connection.healthOnly) {
      this.#quietHealthOnly.add(connection);
      return;
    }
    this.#quiet[state].add(connection);
    if (state === "known") return;
    const own = this.#withoutKeyOf.get(connection.addressGroup);
    if (own) own.add(connection);
    else this.#withoutKeyOf.set(connection.addressGroup, new Set([connection]));
  }

  #wake(connection: Connection): void {
    const { state, addressGroup } = connection;
    if (state === "busy") return;
    connection.state = "busy";
    this.#quietHealthOnly.delete(connection);
    this.#quiet[state].delete(connection);
    const own = this.#withoutKeyOf.get(addressGroup);
    own?.delete(connection);
    if (own?.size === 0) this.#withoutKeyOf.delete(addressGroup);
  }

  #remove(connection: Connection): void {
    if (this.#all.get(connection.socket) !== connection) return;
    this.#all.delete(connection.socket);
    this.#wake(connection);
    if (connection.healthOnly) this.#endHealthOnly(connection);
  }

  #endHealthOnly(connection: Connection): void {
    connection.healthOnly = false;
    this.#healthOnlyCount -= 1;
  }
}

function first<Value>(values: ReadonlySet<Value>): Value | undefined {
  const [value] = values;
  return value;
}
