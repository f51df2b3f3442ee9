import { lockKey, setKeyRevoked, type KeyKind, type KeyRow } from "../../db/key-rows.ts";
import { appendAudit } from "../audit/append-audit.ts";
import type { AuditAction } from "../audit/audit-entry.ts";
import type { BaseContext, CallContext } from "../context.ts";
import { DomainError } from "../errors.ts";
import type { IdempotencyRecord } from "../idempotency/idempotency-record.ts";
import type { KeyStates } from "./key-states.ts";
import type { Key } from "./key-view.ts";
import type { Keyring } from "./keyring.ts";
import { toRevokedAt } from "./revoked-at.ts";

/** What differs between the kinds of key that can be revoked. */
export interface RevocableKeys<Kind extends KeyKind> {
  kind: Kind;
  action: AuditAction;
  isAuthentic(keyring: Keyring, row: KeyRow<Kind>): boolean;
  toMac(keyring: Keyring, row: KeyRow<Kind>): string;
  toKey(row: KeyRow<Kind>): Key;
  /** The chain of its audit rows. */
  toAuditScope(row: KeyRow<Kind>): string;
}

export interface RevokeKeyInput<Row> {
  keyId: string;
  /** How long the key continues to work, so that callers can change to a new key; 0 for a leaked key. */
  graceSeconds: number;
  idempotency: IdempotencyRecord;
  /** Whether the caller may revoke this key. */
  accepts?: (row: Row) => boolean;
  /** For KEY_NOT_FOUND. */
  whatIsMissing: string;
}

export type RevokeContext = Pick<BaseContext, "db"> & {
  keyStates: KeyStates;
  keyring: Keyring;
} & CallContext;

/**
 * Revokes a key. Of two revocations the earlier instant counts, and revoking a revoked key succeeds. Without a grace,
 * this replica refuses the key at once, and others within the 500 ms of their caches. Throws KEY_NOT_FOUND.
 */
export async function revokeKey<Kind extends KeyKind>(
  ctx: RevokeContext,
  keys: RevocableKeys<Kind>,
  input: RevokeKeyInput<KeyRow<Kind>>,
): Promise<Key> {
  const { keyId, graceSeconds, idempotency, accepts = () => true, whatIsMissing } = input;
  const revoked = await ctx.db.transaction(async (tx) => {
    const before = await lockKey(tx, keys.kind, keyId);
    if (before === undefined || !accepts(before)) {
      throw new DomainError("KEY_NOT_FOUND", `no ${whatIsMissing} has the id ${keyId}`);
    }
    const revokedAt = toRevokedAt(before, graceSeconds);
    const key = keys.toKey({ ...before, revokedAt: revokedAt ?? before.revokedAt });
    if (revokedAt === undefined) {
      await idempotency.complete(tx, key);
      return key;
    }
    // A row that does not verify stays so: its key is refused already, and a new MAC would accept what was changed.
    const isAuthentic = keys.isAuthentic(ctx.keyring, before);
    const mac = isAuthentic ? keys.toMac(ctx.keyring, { ...before, revokedAt }) : before.mac;
    await setKeyRevoked(tx, keys.kind, { id: keyId, revokedAt, mac });
    await idempotency.complete(tx, key);
    const { name, prefix } = key;
    await appendAudit(tx, {
      scope: keys.toAuditScope(before),
      actor: ctx.actor,
      action: keys.action,
      requestId: ctx.requestId,
      metadata: { keyId, name, prefix, graceSeconds, revokedAt },
    });
    return key;
  });
  ctx.keyStates.clear();
  return revoked;
}
