import { lockKey, setKeyRevoked } from "../../db/key-rows.ts";
import { appendAudit } from "../audit/append-audit.ts";
import type { BaseContext, CallContext } from "../context.ts";
import { DomainError } from "../errors.ts";
import type { IdempotencyRecord } from "../idempotency/idempotency-record.ts";
import { isOperatorAuthentic, toOperatorMac } from "./key-mac.ts";
import type { KeyStates } from "./key-states.ts";
import { toOperatorKey, type Key } from "./key-view.ts";
import type { Keyring } from "./keyring.ts";
import { toRevokedAt } from "./revoked-at.ts";

export interface RevokeOperatorInput {
  keyId: string;
  /** How long the key continues to work; 0 for a leaked key. */
  graceSeconds: number;
  idempotency: IdempotencyRecord;
}

/**
 * Revokes an operator key, as `revokePlatformKey` does for platform keys. Operators may revoke each other and
 * themselves: the bootstrap key is in the configuration, so it always stays. Throws KEY_NOT_FOUND.
 */
export async function revokeOperator(
  ctx: Pick<BaseContext, "db"> & { keyStates: KeyStates; keyring: Keyring } & CallContext,
  { keyId, graceSeconds, idempotency }: RevokeOperatorInput,
): Promise<Key> {
  const revoked = await ctx.db.transaction(async (tx) => {
    const before = await lockKey(tx, "operator", keyId);
    if (before === undefined) throw new DomainError("KEY_NOT_FOUND", `no operator key has the id ${keyId}`);
    const revokedAt = toRevokedAt(before, graceSeconds);
    const key = toOperatorKey({ ...before, revokedAt: revokedAt ?? before.revokedAt });
    if (revokedAt === undefined) {
      await idempotency.complete(tx, key);
      return key;
    }
    // A row that does not verify stays so: its key is refused already, and a new MAC would accept what was changed.
    const isAuthentic = isOperatorAuthentic(ctx.keyring, before);
    const mac = isAuthentic ? toOperatorMac(ctx.keyring, { ...before, revokedAt }) : before.mac;
    await setKeyRevoked(tx, "operator", { id: keyId, revokedAt, mac });
    await idempotency.complete(tx, key);
    const { name, prefix } = key;
    await appendAudit(tx, {
      scope: "platform",
      actor: ctx.actor,
      action: "operator.revoked",
      requestId: ctx.requestId,
      metadata: { keyId, name, prefix, graceSeconds, revokedAt },
    });
    return key;
  });
  ctx.keyStates.clear();
  return revoked;
}
