import { timingSafeEqual } from "node:crypto";
import { isDatabaseUnavailable } from "../../db/postgres-error.ts";
import type { BaseContext } from "../context.ts";
import type { Actor } from "../actor.ts";
import { DomainError, type DeniedKey } from "../errors.ts";
import { toPolicy } from "../products/product-policy.ts";
import { BOOTSTRAP_NAME, type Caller, type OperatorCaller } from "./caller.ts";
import { findKeyKind, hashKey } from "./key-format.ts";
import type { KeyState } from "./key-state.ts";
import type { KeyStates, PresentedKey } from "./key-states.ts";
import { rowTampered } from "./tampered-row.ts";

type KeyContext = Pick<BaseContext, "config"> & { keyStates: KeyStates };

const BOOTSTRAP: OperatorCaller = {
  kind: "operator",
  keyId: BOOTSTRAP_NAME,
  name: BOOTSTRAP_NAME,
  actor: { kind: "operator", id: BOOTSTRAP_NAME, name: BOOTSTRAP_NAME },
};

/**
 * Returns the caller that this key belongs to. `address` is where the key came from; it bounds how many unknown keys are
 * looked up.
 *
 * @throws INVALID_KEY, KEY_EXPIRED, KEY_REVOKED, ROW_TAMPERED; RATE_LIMITED, DATABASE_UNAVAILABLE if the key cannot be checked now.
 *   Open streams continue after these two.
 */
export async function authenticate(ctx: KeyContext, bearer: string, address?: string): Promise<Caller> {
  const hash = hashKey(bearer);
  // The bootstrap operator's key may have any format, also that of a platform key. So compare it first, by its hash.
  if (isBootstrapKey(ctx, hash)) return BOOTSTRAP;
  const kind = findKeyKind(bearer);
  if (kind === undefined || kind === "engine") throw invalidKey();
  const state = await getKeyState(ctx, { kind, hash }, address);
  if (state === undefined) throw invalidKey();
  if (!state.isAuthentic) {
    throw new DomainError("INVALID_KEY", "the record of this key does not verify: an operator must check it");
  }
  if (isOfRemovedProduct(state)) throw invalidKey();
  const caller = toCaller(state);
  const denied = { deniedKey: toDeniedKey(caller) };
  if (state.revoked) throw new DomainError("KEY_REVOKED", "this key was revoked: use another key", denied);
  if (state.expired) throw new DomainError("KEY_EXPIRED", "this key has expired: use another key", denied);
  requireAuthenticLimits(state);
  ctx.keyStates.noteUse(state);
  return caller;
}

function isOfRemovedProduct(state: KeyState): boolean {
  return state.kind === "platform" && state.isProductAuthentic && state.product.deletedAt !== null;
}

/** The limits of a caller are those of its product's policy. Throws ROW_TAMPERED. */
function requireAuthenticLimits(state: KeyState): void {
  if (state.kind === "operator" || state.isProductAuthentic) return;
  const { id, mac } = state.product;
  throw rowTampered({ table: "products", id, mac });
}

function toCaller(state: KeyState): Caller {
  const { id: keyId, name } = state;
  if (state.kind === "operator") {
    return { kind: "operator", keyId, name, actor: { kind: "operator", id: keyId, name } };
  }
  const { productId, scopes } = state;
  const policy = toPolicy(state.product.policy);
  const actor: Actor = { kind: "platform_key", id: keyId, name };
  return { kind: "platform_key", keyId, name, productId, policy, scopes, actor };
}

function toDeniedKey(caller: Caller): DeniedKey {
  return { productId: caller.kind === "platform_key" ? caller.productId : null, actor: caller.actor };
}

function isBootstrapKey(ctx: KeyContext, hash: string): boolean {
  const { adminKeyHash } = ctx.config;
  if (adminKeyHash === undefined) return false;
  const [given, known] = [Buffer.from(hash, "hex"), Buffer.from(adminKeyHash, "hex")];
  return given.length === known.length && timingSafeEqual(given, known);
}

async function getKeyState(
  ctx: KeyContext,
  key: PresentedKey,
  address: string | undefined,
): Promise<KeyState | undefined> {
  try {
    return await ctx.keyStates.find(key, address);
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
