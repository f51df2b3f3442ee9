import { lockKey, setKeyRevoked } from "../../db/key-rows.ts";
import type { IdempotencyRecord } from "../idempotency/idempotency-record.ts";
import { appendAudit } from "../audit/append-audit.ts";
import type { BaseContext, CallContext } from "../context.ts";
import { DomainError } from "../errors.ts";
import { isPlatformKeyAuthentic, toPlatformKeyMac } from "./key-mac.ts";
import type { KeyStates } from "./key-states.ts";
import { toKey, type Key } from "./key-view.ts";
import type { Keyring } from "./keyring.ts";
import { toRevokedAt } from "./revoked-at.ts";

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
  ctx: Pick<BaseContext, "db"> & { keyStates: KeyStates; keyring: Keyring } & CallContext,
  input: RevokePlatformKeyInput,
): Promise<Key> {
  const { keyId, productId, graceSeconds, idempotency } = input;
  const revoked = await ctx.db.transaction(async (tx) => {
    const before = await lockKey(tx, "platform", keyId);
    if (before === undefined || (productId ?? before.productId) !== before.productId) {
      const message = `no platform key${productId === undefined ? "" : " of this product"} has the id ${keyId}`;
      throw new DomainError("KEY_NOT_FOUND", message);
    }
    const revokedAt = toRevokedAt(before, graceSeconds);
    const key = toKey({ ...before, revokedAt: revokedAt ?? before.revokedAt });
    if (revokedAt === undefined) {
      await idempotency.complete(tx, key);
      return key;
    }
    // A row that does not verify stays so: its key is refused already, and a new MAC would accept what was changed.
    const isAuthentic = isPlatformKeyAuthentic(ctx.keyring, before);
    const mac = isAuthentic ? toPlatformKeyMac(ctx.keyring, { ...before, revokedAt }) : before.mac;
    await setKeyRevoked(tx, "platform", { id: keyId, revokedAt, mac });
    await idempotency.complete(tx, key);
    const { name, prefix } = key;
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
