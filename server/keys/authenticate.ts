import { timingSafeEqual } from "node:crypto";
import { recordKeyUsed, type PlatformKeyState, type Scope } from "../../db/platform-keys.ts";
import { isDatabaseUnavailable } from "../../db/postgres-error.ts";
import type { Actor } from "../audit/audit-entry.ts";
import type { BaseContext } from "../context.ts";
import { DomainError, toErrorMessage } from "../errors.ts";
import { findKeyKind, hashKey } from "./key-format.ts";
import type { KeyStates } from "./key-states.ts";

export type { Scope };

/** A product's key, which sees its own product only. */
export interface ProductCaller {
  kind: "platform_key";
  keyId: string;
  name: string;
  productId: string;
  scopes: readonly Scope[];
  actor: Actor;
}

/** An operator, who names the product. */
export interface OperatorCaller {
  kind: "operator";
  keyId: string;
  name: string;
  actor: Actor;
}

export type Caller = ProductCaller | OperatorCaller;

type KeyContext = Pick<BaseContext, "db" | "config" | "log"> & { keyStates: KeyStates };

const BOOTSTRAP: OperatorCaller = {
  kind: "operator",
  keyId: "bootstrap",
  name: "bootstrap",
  actor: { kind: "operator", id: "bootstrap", name: "bootstrap" },
};

/**
 * Who the bearer of this key is. Throws INVALID_KEY, KEY_EXPIRED or KEY_REVOKED, and DATABASE_UNAVAILABLE when
 * nobody can tell: callers with an open stream go on then.
 */
export async function authenticate(ctx: KeyContext, bearer: string): Promise<Caller> {
  const hash = hashKey(bearer);
  // First, and whatever it looks like: the bootstrap operator's key is any opaque string.
  if (isBootstrapKey(ctx, hash)) return BOOTSTRAP;
  if (findKeyKind(bearer) !== "platform") throw invalidKey();
  const state = await getKeyState(ctx, hash);
  if (state === undefined || state.productRemoved) throw invalidKey();
  if (state.revoked) throw new DomainError("KEY_REVOKED", "this key was revoked");
  if (state.expired) throw new DomainError("KEY_EXPIRED", "this key has expired");
  noteUse(ctx, state);
  const { id: keyId, name, productId, scopes } = state;
  return {
    kind: "platform_key",
    keyId,
    name,
    productId,
    scopes,
    actor: { kind: "platform_key", id: keyId, name },
  };
}

function isBootstrapKey(ctx: KeyContext, hash: string): boolean {
  const { adminKeyHash } = ctx.config;
  if (adminKeyHash === undefined) return false;
  const [given, known] = [Buffer.from(hash, "hex"), Buffer.from(adminKeyHash, "hex")];
  return given.length === known.length && timingSafeEqual(given, known);
}

async function getKeyState(ctx: KeyContext, hash: string): Promise<PlatformKeyState | undefined> {
  try {
    return await ctx.keyStates.find(hash);
  } catch (error) {
    if (!isDatabaseUnavailable(error)) throw error;
    throw new DomainError("DATABASE_UNAVAILABLE", "the key cannot be checked right now", {
      retryAfterMs: 1_000,
      cause: error,
    });
  }
}

/** Keys whose use is being written now. The state is shared for a moment, and one write is enough. */
const notedStates = new WeakSet<PlatformKeyState>();

/** Off the path of the call: nobody waits for it, and nobody fails with it. */
function noteUse(ctx: KeyContext, state: PlatformKeyState): void {
  if (!state.usageStale || notedStates.has(state)) return;
  notedStates.add(state);
  recordKeyUsed(ctx.db, state.id).catch((error: unknown) => {
    ctx.log.debug({ keyId: state.id, error: toErrorMessage(error) }, "the use of a key was not recorded");
  });
}

function invalidKey(): DomainError {
  return new DomainError("INVALID_KEY", "this is no key of this service");
}
