import type { Db } from "../../db/client.ts";
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
  const key = await ctx.db.transaction(async (tx) => setRevoked(ctx, tx, input));
  ctx.keyStates.clear();
  return key;
}

async function setRevoked(ctx: CallContext, tx: Db, input: RevokePlatformKeyInput): Promise<Key> {
  const before = await lockPlatformKey(tx, input.keyId);
  if (before === undefined || (input.productId ?? before.productId) !== before.productId) {
    throw new DomainError(
      "KEY_NOT_FOUND",
      `no platform key${input.productId === undefined ? "" : " of this product"} has the id ${input.keyId}`,
    );
  }
  const changed = await setKeyRevoked(tx, { id: before.id, graceSeconds: input.graceSeconds });
  const key = toKey(changed ?? before);
  await input.idempotency.complete(tx, key);
  if (changed !== undefined) {
    await appendAudit(tx, {
      scope: before.productId,
      actor: ctx.actor,
      action: "platform_key.revoked",
      requestId: ctx.requestId,
      metadata: {
        keyId: before.id,
        name: before.name,
        prefix: before.prefix,
        graceSeconds: input.graceSeconds,
        revokedAt: key.revokedAt,
      },
    });
  }
  return key;
}
