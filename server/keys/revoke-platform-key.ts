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
  /** When given, the key has to be this product's. */
  productId?: string | undefined;
  /** How long the key still works, for callers to change to a new one; 0 for a leak. */
  graceSeconds: number;
  idempotency: IdempotencyRecord;
}

/**
 * Of two revocations the sooner one counts; revoking a revoked key is success. This process refuses the key at
 * once when there is no grace, others within the half second that they remember keys. Throws KEY_NOT_FOUND.
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
    throw new DomainError("KEY_NOT_FOUND", "there is no such key");
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
