import { createTRPCClient } from "@trpc/client";
import type { AppRouter } from "../server/api/routers/router.ts";
import { toApiLinks } from "./api-links.ts";
import { EnginehouseError } from "./enginehouse-error.ts";
import { ReplicaUrls } from "./replica-urls.ts";
import { DEFAULT_RETRY, type RetryOptions } from "./retry-options.ts";
import { Transport } from "./transport.ts";
import { openTurn, type Api, type ExecuteInput, type Turn } from "./turn.ts";

export type ClientOptions = {
  /** A platform key, or an operator's. */
  key: string;
  /** In place of the global one. */
  fetch?: typeof globalThis.fetch;
  retry?: Partial<RetryOptions>;
} & (
  | { /** Where the service is, for instance `http://127.0.0.1:8080`. */ url: string; urls?: never }
  | {
      /** Its replicas: the first is asked until it fails, then the next. */ urls: readonly string[];
      url?: never;
    }
);

export interface Client {
  /**
   * Every procedure: `client.api.engines.get.query({ userId })`. A refusal is a TRPCClientError whose `data.reason`
   * says why, and so does `findReason`.
   */
  readonly api: Api;
  /** Starts a turn and reads it as it comes. */
  execute(input: ExecuteInput): Turn;
  /** Stops all calls and streams of this client. Turns go on. */
  close(): void;
}

/**
 * A client of one Enginehouse. What fails on its way is tried again with growing pauses, on the next replica if there
 * is one: connections that are refused, replicas that shut down, and, unless it might do something twice, connections
 * that break and gateways' 502, 503 and 504. Mutations are sent with an idempotency key for that, but for `rpc.call`.
 *
 * Throws a TypeError for a key or an address that no service can have.
 */
export function createClient(options: ClientOptions): Client {
  requireKey(options.key);
  const closing = new AbortController();
  const transport = new Transport({
    replicas: new ReplicaUrls(options.urls ?? [options.url]),
    key: options.key,
    // A global fetch wants to be called as such.
    fetch: options.fetch ?? ((input, init) => globalThis.fetch(input, init)),
    retry: { ...DEFAULT_RETRY, ...options.retry },
  });
  const closed = closing.signal;
  const api = createTRPCClient<AppRouter>({ links: toApiLinks(transport, closed) }) as Api;
  return {
    api,
    execute: (input) => openTurn({ api, transport, closed }, input),
    close: () => closing.abort(new EnginehouseError("CLIENT_CLOSED", "the client is closed")),
  };
}

/** A header could not carry another one, which would look like a connection that fails. */
function requireKey(key: unknown): void {
  if (typeof key === "string" && /^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$/.test(key)) return;
  // Without the key: it may be a good one with a line break at its end.
  const isAbsent = key === undefined || key === "";
  const what = isAbsent
    ? "there is none"
    : "this holds a line break, a space at an end, or what is not ASCII";
  throw new TypeError(`a client needs a platform key or an operator's: ${what}`);
}
