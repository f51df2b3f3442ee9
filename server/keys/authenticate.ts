import { timingSafeEqual } from "node:crypto";
import type { PlatformKeyState } from "../../db/platform-keys.ts";
import { isDatabaseUnavailable } from "../../db/postgres-error.ts";
import type { BaseContext } from "../context.ts";
import { DomainError } from "../errors.ts";
import { toPolicy } from "../products/product-policy.ts";
import type { Caller, OperatorCaller } from "./caller.ts";
import { findKeyKind, hashKey } from "./key-format.ts";
import type { KeyStates } from "./key-states.ts";

type KeyContext = Pick<BaseContext, "config"> & { keyStates: KeyStates };

const BOOTSTRAP: OperatorCaller = {
  kind: "operator",
  keyId: "bootstrap",
  name: "bootstrap",
  actor: { kind: "operator", id: "bootstrap", name: "bootstrap" },
};

/**
 * Returns the caller that this key belongs to. `address` is where the key came from; it bounds how many unknown keys are
 * looked up.
 *
 * @throws INVALID_KEY, KEY_EXPIRED, KEY_REVOKED; RATE_LIMITED, DATABASE_UNAVAILABLE if the key cannot be checked now.
 *   Open streams continue after these two.
 */
export async function authenticate(ctx: KeyContext, bearer: string, address?: string): Promise<Caller> {
  const hash = hashKey(bearer);
  // The bootstrap operator's key may have any format, also that of a platform key. So compare it first, by its hash.
  if (isBootstrapKey(ctx, hash)) return BOOTSTRAP;
  if (findKeyKind(bearer) !== "platform") throw invalidKey();
  const state = await getKeyState(ctx, hash, address);
  if (state === undefined || state.productRemoved) throw invalidKey();
  if (state.revoked) throw new DomainError("KEY_REVOKED", "this key was revoked: use another key");
  if (state.expired) throw new DomainError("KEY_EXPIRED", "this key has expired: use another key");
  ctx.keyStates.noteUse(state);
  const { id: keyId, name, productId, scopes } = state;
  const policy = toPolicy(state.policy);
  return {
    kind: "platform_key",
    keyId,
    name,
    productId,
    policy,
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

async function getKeyState(
  ctx: KeyContext,
  hash: string,
  address: string | undefined,
): Promise<PlatformKeyState | undefined> {
  try {
    return await ctx.keyStates.find(hash, address);
  } catch (error) {
    if (!isDatabaseUnavailable(error)) throw error;
    throw new DomainError("DATABASE_UNAVAILABLE", "the key cannot be checked: the database is unavailable", {
      retryAfterMs: 1_000,
      cause: error,
    });
  }
}

function invalidKey(): DomainError {
  return new DomainError(
    "INVALID_KEY",
    "this is not a valid key of this service: send a platform or operator key",
  );
}
