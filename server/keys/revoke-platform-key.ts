import { isPlatformKeyAuthentic, toPlatformKeyMac } from "./key-mac.ts";
import { toKey, type Key } from "./key-view.ts";
import { revokeKey, type RevocableKeys, type RevokeContext, type RevokeKeyInput } from "./revoke-key.ts";

export interface RevokePlatformKeyInput extends Pick<
  RevokeKeyInput<unknown>,
  "keyId" | "graceSeconds" | "idempotency"
> {
  /** If given, the key must belong to this product. */
  productId?: string | undefined;
}

const PLATFORM_KEYS: RevocableKeys<"platform"> = {
  kind: "platform",
  action: "platform_key.revoked",
  isAuthentic: isPlatformKeyAuthentic,
  toMac: toPlatformKeyMac,
  toKey,
  toAuditScope: (row) => row.productId,
};

/** Throws KEY_NOT_FOUND. */
export async function revokePlatformKey(
  ctx: RevokeContext,
  { productId, ...input }: RevokePlatformKeyInput,
): Promise<Key> {
  return revokeKey(ctx, PLATFORM_KEYS, {
    ...input,
    accepts: (row) => productId === undefined || row.productId === productId,
    whatIsMissing: productId === undefined ? "platform key" : "platform key of this product",
  });
}
