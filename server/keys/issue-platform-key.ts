import { randomUUIDv7 } from "node:crypto";
import type { AuditValues } from "../../db/audit-log.ts";
import type { Db } from "../../db/client.ts";
import {
  insertAuditedPlatformKeys,
  insertPlatformKey,
  type InsertedPlatformKey,
  type NewPlatformKey,
  type PlatformKeyRow,
  type Scope,
} from "../../db/platform-keys.ts";
import { NO_RECORD, type IdempotencyRecord } from "../idempotency/idempotency-record.ts";
import { appendAudit, toAuditValues } from "../audit/append-audit.ts";
import type { AuditEntry } from "../audit/audit-entry.ts";
import { GroupCommit } from "../audit/group-commit.ts";
import type { BaseContext, CallContext } from "../context.ts";
import { DomainError } from "../errors.ts";
import { expiryPassed, toExpiry, type IssuedKey, type KeyIssuer } from "./issued-key.ts";
import { createKey } from "./key-format.ts";
import { toPlatformKeyMac } from "./key-mac.ts";
import { toKey } from "./key-view.ts";

export interface IssuePlatformKeyInput {
  productId: string;
  name: string;
  /** `DEFAULT_SCOPES` unless given. */
  scopes?: readonly Scope[] | undefined;
  /** ISO instant. Without it, the key never expires. */
  expiresAt?: string | undefined;
  idempotency: IdempotencyRecord;
}

/** All scopes except `keys`, which reveals engine keys and so must be requested explicitly. */
export const DEFAULT_SCOPES = ["read", "lifecycle", "turns", "rpc"] as const satisfies readonly Scope[];

type KeyInsert = { key: NewPlatformKey; audit: AuditValues };
/** New platform keys with their audit rows. Keys of one product that arrive together share a commit. */
export type PlatformKeyInserts = GroupCommit<KeyInsert, InsertedPlatformKey>;

export function openPlatformKeyInserts(db: Db): PlatformKeyInserts {
  return new GroupCommit(async (keys) => insertAuditedPlatformKeys(db, keys));
}

/** Throws PRODUCT_NOT_FOUND, and INVALID_INPUT if `expiresAt` has passed. */
export async function issuePlatformKey(
  ctx: Pick<BaseContext, "db"> & { platformKeyInserts: PlatformKeyInserts } & KeyIssuer & CallContext,
  input: IssuePlatformKeyInput,
): Promise<IssuedKey> {
  const { idempotency, productId } = input;
  if (idempotency !== NO_RECORD) return ctx.db.transaction(async (tx) => insertIssuedKey(ctx, tx, input));
  const { key, apiKey } = toNewKey(ctx, input);
  const audit = toAuditValues(toEntry(ctx, key));
  const row = getInserted(await ctx.platformKeyInserts.add(productId, { key, audit }));
  return { key: toKey(row), apiKey };
}

/**
 * Issues a key of a live product, and stores the reply, in the caller's transaction. The audit row comes last, because
 * it locks the chain's head.
 */
export async function insertIssuedKey(
  ctx: CallContext & KeyIssuer,
  tx: Db,
  input: IssuePlatformKeyInput,
): Promise<IssuedKey> {
  const { key, apiKey } = toNewKey(ctx, input);
  const reply = { key: toKey(getInserted(await insertPlatformKey(tx, key))), apiKey };
  await input.idempotency.complete(tx, reply);
  await appendAudit(tx, toEntry(ctx, key));
  return reply;
}

function toNewKey(
  { keyring }: KeyIssuer,
  input: IssuePlatformKeyInput,
): { key: NewPlatformKey; apiKey: string } {
  const { plaintext, hash, prefix } = createKey("platform");
  const key = {
    id: randomUUIDv7(),
    productId: input.productId,
    name: input.name,
    prefix,
    hash,
    scopes: [...new Set(input.scopes ?? DEFAULT_SCOPES)],
    expiresAt: toExpiry(input.expiresAt),
  };
  const mac = toPlatformKeyMac(keyring, { ...key, revokedAt: null });
  return { key: { ...key, mac }, apiKey: plaintext };
}

function toEntry(ctx: CallContext, key: NewPlatformKey): AuditEntry {
  const { id: keyId, productId, name, prefix, scopes, expiresAt } = key;
  return {
    scope: productId,
    actor: ctx.actor,
    action: "platform_key.issued",
    requestId: ctx.requestId,
    metadata: { keyId, name, prefix, scopes, expiresAt },
  };
}

function getInserted(result: InsertedPlatformKey): PlatformKeyRow {
  if (result.inserted) return result.row;
  if (result.why === "expired") throw expiryPassed();
  throw new DomainError("PRODUCT_NOT_FOUND", "no live product has this id");
}
