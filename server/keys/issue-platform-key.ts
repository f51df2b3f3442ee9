import { randomUUIDv7 } from "node:crypto";
import type { Db } from "../../db/client.ts";
import { insertPlatformKey, type Scope } from "../../db/platform-keys.ts";
import { holdProduct } from "../../db/products.ts";
import type { IdempotencyClaim } from "../admission/idempotency-claim.ts";
import { appendAudit } from "../audit/append-audit.ts";
import type { AppContext, CallContext } from "../context.ts";
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
  claim: IdempotencyClaim;
}

export interface IssuedKey {
  key: Key;
  /** The plaintext, in this reply only. */
  apiKey: string;
}

/** A key that can reveal the engines' own keys has to be asked for. */
export const DEFAULT_SCOPES = ["read", "lifecycle", "turns", "rpc"] as const satisfies readonly Scope[];

/** Throws PRODUCT_NOT_FOUND, and INVALID_INPUT for an expiry that has passed. */
export async function issuePlatformKey(
  ctx: Pick<AppContext, "db"> & CallContext,
  input: IssuePlatformKeyInput,
): Promise<IssuedKey> {
  return ctx.db.transaction(async (tx) => {
    if (!(await holdProduct(tx, input.productId))) {
      throw new DomainError("PRODUCT_NOT_FOUND", "there is no such product");
    }
    return insertIssuedKey(ctx, tx, input);
  });
}

/** The same within a transaction that holds or locks the product; appends to the product's audit chain. */
export async function insertIssuedKey(
  ctx: CallContext,
  tx: Db,
  input: Omit<IssuePlatformKeyInput, "claim"> & Partial<Pick<IssuePlatformKeyInput, "claim">>,
): Promise<IssuedKey> {
  // Postgres does not know the year 0, which ISO instants may name.
  if (input.expiresAt !== undefined && Date.parse(input.expiresAt) <= 0) throw expiryPassed();
  const { plaintext, hash, prefix } = createKey("platform");
  const row = await insertPlatformKey(tx, {
    id: randomUUIDv7(),
    productId: input.productId,
    name: input.name,
    prefix,
    hash,
    scopes: [...new Set(input.scopes ?? DEFAULT_SCOPES)],
    expiresAt: input.expiresAt ?? null,
  });
  if (row.expired) throw expiryPassed();
  const reply = { key: toKey(row), apiKey: plaintext };
  await input.claim?.complete(tx, reply);
  await appendAudit(tx, {
    scope: input.productId,
    actor: ctx.actor,
    action: "platform_key.issued",
    requestId: ctx.requestId,
    metadata: { keyId: row.id, name: row.name, prefix, scopes: row.scopes, expiresAt: reply.key.expiresAt },
  });
  return reply;
}

function expiryPassed(): DomainError {
  const message = "the expiry has passed already";
  return new DomainError("INVALID_INPUT", message, { issues: [{ path: "expiresAt", message }] });
}
