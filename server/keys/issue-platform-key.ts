import { randomUUIDv7 } from "node:crypto";
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
import { toGrouped } from "../audit/group-commit.ts";
import type { BaseContext, CallContext } from "../context.ts";
import { DomainError } from "../errors.ts";
import { createKey } from "./key-format.ts";
import { toKey, type Key } from "./key-view.ts";

export interface IssuePlatformKeyInput {
  productId: string;
  name: string;
  /** All but `keys` unless given. */
  scopes?: readonly Scope[] | undefined;
  /** ISO instant; never when absent. */
  expiresAt?: string | undefined;
  idempotency: IdempotencyRecord;
}

export interface IssuedKey {
  key: Key;
  /** The plaintext, in this reply only. */
  apiKey: string;
}

/** A key that can reveal the engines' own keys has to be asked for. */
export const DEFAULT_SCOPES = ["read", "lifecycle", "turns", "rpc"] as const satisfies readonly Scope[];

const insertGrouped = toGrouped(insertAuditedPlatformKeys);

/** Throws PRODUCT_NOT_FOUND, and INVALID_INPUT for an expiry that has passed. */
export async function issuePlatformKey(
  ctx: Pick<BaseContext, "db"> & CallContext,
  input: IssuePlatformKeyInput,
): Promise<IssuedKey> {
  const { idempotency, productId } = input;
  if (idempotency !== NO_RECORD) return ctx.db.transaction(async (tx) => insertKeyWithReply(ctx, tx, input));
  const { key, apiKey } = toNewKey(input);
  const audit = toAuditValues(toEntry(ctx, key));
  const row = getInserted(await insertGrouped(ctx.db, productId, { key, audit }));
  return { key: toKey(row), apiKey };
}

type NewKeyInput = Omit<IssuePlatformKeyInput, "idempotency">;

/** The same within a transaction that locks the product or made it; appends to the product's audit chain. */
export async function insertIssuedKey(ctx: CallContext, tx: Db, input: NewKeyInput): Promise<IssuedKey> {
  const { key, apiKey } = toNewKey(input);
  const row = getInserted(await insertPlatformKey(tx, key));
  await appendAudit(tx, toEntry(ctx, key));
  return { key: toKey(row), apiKey };
}

/** The reply, which only the insert completes, is stored before the record is appended. */
async function insertKeyWithReply(ctx: CallContext, tx: Db, input: IssuePlatformKeyInput): Promise<IssuedKey> {
  const { key, apiKey } = toNewKey(input);
  const reply = { key: toKey(getInserted(await insertPlatformKey(tx, key))), apiKey };
  await input.idempotency.complete(tx, reply);
  await appendAudit(tx, toEntry(ctx, key));
  return reply;
}

function toNewKey(input: NewKeyInput): { key: NewPlatformKey; apiKey: string } {
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
  return { key, apiKey: plaintext };
}

/** In milliseconds, as it is shown, so that the record says what is stored. */
function toExpiry(expiresAt: string | undefined): string | null {
  if (expiresAt === undefined) return null;
  const instant = new Date(expiresAt);
  // Postgres does not know the year 0, which ISO instants may name.
  if (instant.getTime() <= 0) throw expiryPassed();
  return instant.toISOString();
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
  throw new DomainError("PRODUCT_NOT_FOUND", "there is no such product");
}

function expiryPassed(): DomainError {
  const message = "the expiry has passed already";
  return new DomainError("INVALID_INPUT", message, { issues: [{ path: "expiresAt", message }] });
}
