import { createTRPCClient } from "@trpc/client";
import type { AppRouter } from "../server/api/routers/router.ts";
import { toApiLinks } from "./api-links.ts";
import { EnginehouseError } from "./enginehouse-error.ts";
import { ReplicaUrls } from "./replica-urls.ts";
import { DEFAULT_RETRY, type RetryOptions } from "./retry-options.ts";
import { Transport } from "./transport.ts";
import { ensureEngine, type Engine, type EnsureInput } from "./ensure-engine.ts";
import { StartedTurn, type Api, type ExecuteInput, type FollowInput, type Turn } from "./turn.ts";

export type ClientOptions = {
  /** A platform key or an operator key. */
  key: string;
  /** Used instead of the global `fetch`. */
  fetch?: typeof globalThis.fetch;
  retry?: Partial<RetryOptions>;
} & (
  | { /** The address of the service, for instance `http://127.0.0.1:8080`. */ url: string; urls?: never }
  | {
      /** The addresses of the replicas. The client uses one until it fails, then the next. */ urls: readonly string[];
      url?: never;
    }
);

export interface Client {
  /**
   * Every procedure: `client.api.engines.get.query({ userId })`. A refusal throws a TRPCClientError; `findReason`
   * returns its reason.
   */
  readonly api: Api;
  readonly engines: {
    /**
     * Returns the user's engine, running. Provisions it if the user has none, and starts it if it is stopped or has
     * failed. Any number of processes may call this at once. Throws an EnginehouseError.
     */
    ensure(input: EnsureInput): Promise<Engine>;
  };
  /** Starts a turn and reads its events as they arrive. With `after`, reads on in a turn that has started. */
  execute(input: ExecuteInput): Turn;
  /** Reads a turn that has started, in this process or another one. */
  follow(input: FollowInput): Turn;
  /** Stops all calls and streams of this client. Turns continue. */
  close(): void;
}

/**
 * Creates a client of one Enginehouse.
 *
 * The client sends a request again when a connection is refused or a replica shuts down. It also does so when a
 * connection breaks or a gateway reports trouble that may pass (408, 429, 502 to 504, 520 to 530), unless the service
 * could then act twice. For this, every mutation but `rpc.call` has an idempotency key. Pauses grow, and the next
 * attempt goes to the next replica. The client follows no redirect.
 *
 * Throws a TypeError if the key or an address is malformed.
 */
export function createClient(options: ClientOptions): Client {
  requireKey(options.key);
  const closing = new AbortController();
  const transport = new Transport({
    replicas: new ReplicaUrls(options.urls ?? [options.url]),
    key: options.key,
    // Browsers refuse the global fetch with another `this`.
    fetch: options.fetch ?? ((input, init) => globalThis.fetch(input, init)),
    retry: { ...DEFAULT_RETRY, ...options.retry },
  });
  const closed = closing.signal;
  const api = createTRPCClient<AppRouter>({ links: toApiLinks(transport, closed) }) as Api;
  const ctx = { api, transport, closed };
  return {
    api,
    engines: { ensure: async (input) => ensureEngine({ api, retry: transport.retry }, input) },
    execute: (input) => new StartedTurn(ctx, input),
    follow: (input) => new StartedTurn(ctx, input),
    close: () => closing.abort(new EnginehouseError("CLIENT_CLOSED", "the client is closed")),
  };
}

/** A key that no header can carry would otherwise look like a failed connection. */
function requireKey(key: unknown): void {
  if (typeof key === "string" && /^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$/.test(key)) return;
  // The message must not have the key: it may be a valid one with a line break at its end.
  const isAbsent = key === undefined || key === "";
  throw new TypeError(
    isAbsent
      ? "the client has no key: pass a platform key or an operator key"
      : "the client's key has a line break, a space at an end, or a character that is not ASCII: remove it",
  );
}
