import { isOperatorAuthentic, toOperatorMac } from "./key-mac.ts";
import { toOperatorKey, type Key } from "./key-view.ts";
import { revokeKey, type RevocableKeys, type RevokeContext, type RevokeKeyInput } from "./revoke-key.ts";

export type RevokeOperatorInput = Pick<RevokeKeyInput<unknown>, "keyId" | "graceSeconds" | "idempotency">;

const OPERATOR_KEYS: RevocableKeys<"operator"> = {
  kind: "operator",
  action: "operator.revoked",
  isAuthentic: isOperatorAuthentic,
  toMac: toOperatorMac,
  toKey: toOperatorKey,
  toAuditScope: () => "platform",
};

/**
 * Operators may revoke each other and themselves: the bootstrap key is in the configuration, so it always stays. Throws
 * KEY_NOT_FOUND.
 */
export async function revokeOperator(ctx: RevokeContext, input: RevokeOperatorInput): Promise<Key> {
  return revokeKey(ctx, OPERATOR_KEYS, { ...input, whatIsMissing: "operator key" });
}
