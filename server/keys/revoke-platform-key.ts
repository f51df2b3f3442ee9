import { lockPlatformKey, setKeyRevoked } from "../../db/platform-keys.ts";
import type { IdempotencyRecord } from "../idempotency/idempotency-record.ts";
import { appendAudit } from "../audit/append-audit.ts";
import type { BaseContext, CallContext } from "../context.ts";
import { DomainError } from "../errors.ts";
import type { KeyStates } from "./key-states.ts";
import { toKey, type Key } from "./key-view.ts";

export interface RevokePlatformKeyInput {
  keyId: string;
  /** If given, the key must belong to this product. */
  productId?: string | undefined;
  /** How long the key continues to work, so that callers can change to a new key; 0 for a leaked key. */
  graceSeconds: number;
  idempotency: IdempotencyRecord;
}

/**
 * Revokes a key. Of two revocations the earlier instant counts, and revoking a revoked key succeeds. Without a grace,
 * this replica refuses the key at once, and others within the 500 ms of their caches. Throws KEY_NOT_FOUND.
 */
export async function revokePlatformKey(
  ctx: Pick<BaseContext, "db"> & { keyStates: KeyStates } & CallContext,
  input: RevokePlatformKeyInput,
): Promise<Key> {
  const { keyId, productId, graceSeconds, idempotency } = input;
  const revoked = await ctx.db.transaction(async (tx) => {
    const before = await lockPlatformKey(tx, keyId);
    if (before === undefined || (productId ?? before.productId) !== before.productId) {
      const message = `no platform key${productId === undefined ? "" : " of this product"} has the id ${keyId}`;
      throw new DomainError("KEY_NOT_FOUND", message);
    }
    const changed = await setKeyRevoked(tx, { id: keyId, graceSeconds });
    const key = toKey(changed ?? before);
    await idempotency.complete(tx, key);
    if (changed === undefined) return key;
    const { name, prefix, revokedAt } = key;
    await appendAudit(tx, {
      scope: before.productId,
      actor: ctx.actor,
      action: "platform_key.revoked",
      requestId: ctx.requestId,
      metadata: { keyId, name, prefix, graceSeconds, revokedAt },
    });
    return key;
  });
  ctx.keyStates.clear();
  return revoked;
}
