import type { OperatorRow } from "../../db/operators.ts";
import type { PlatformKeyRow } from "../../db/platform-keys.ts";
import type { Keyring } from "./keyring.ts";
import { isRowMac, toMacInstant, toRowMac, type MacInput } from "./row-mac.ts";

type Shared = "id" | "name" | "prefix" | "hash" | "expiresAt" | "revokedAt";
/** Everything that says what the key may do, and until when. */
export type CoveredPlatformKey = Pick<PlatformKeyRow, Shared | "productId" | "scopes">;
export type CoveredOperator = Pick<OperatorRow, Shared>;

type MacKeys = Pick<Keyring, "firstKeyId" | "macKey">;

function toSharedFields({ id, name, prefix, hash, expiresAt, revokedAt }: CoveredOperator) {
  return [id, name, prefix, hash, toMacInstant(expiresAt), toMacInstant(revokedAt)];
}

function toPlatformKeyInput(row: CoveredPlatformKey): MacInput {
  return { purpose: "platform_key", fields: [row.productId, ...toSharedFields(row), row.scopes] };
}

function toOperatorInput(row: CoveredOperator): MacInput {
  return { purpose: "operator", fields: toSharedFields(row) };
}

export function toPlatformKeyMac(keyring: MacKeys, row: CoveredPlatformKey): string {
  return toRowMac(keyring, toPlatformKeyInput(row));
}

export function isPlatformKeyAuthentic(
  keyring: Pick<Keyring, "macKey">,
  row: CoveredPlatformKey & Pick<PlatformKeyRow, "mac">,
): boolean {
  return isRowMac(keyring, toPlatformKeyInput(row), row.mac);
}

export function toOperatorMac(keyring: MacKeys, row: CoveredOperator): string {
  return toRowMac(keyring, toOperatorInput(row));
}

export function isOperatorAuthentic(
  keyring: Pick<Keyring, "macKey">,
  row: CoveredOperator & Pick<OperatorRow, "mac">,
): boolean {
  return isRowMac(keyring, toOperatorInput(row), row.mac);
}
