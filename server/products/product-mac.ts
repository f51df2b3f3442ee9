import canonicalize from "canonicalize";
import type { ProductRow } from "../../db/products.ts";
import type { Keyring } from "../keys/keyring.ts";
import { isRowMac, toRowMac, type MacInput } from "../keys/row-mac.ts";
import { rowTampered } from "../keys/tampered-row.ts";

/** The policy chooses the image and the resources of engines, and the slug says whom an operator's call is for. */
type CoveredColumns = Pick<ProductRow, "id" | "slug" | "policy" | "deletedAt">;

function toProductMacInput({ id, slug, policy, deletedAt }: CoveredColumns): MacInput {
  return { purpose: "product", fields: [id, slug, canonicalize(policy) ?? "", deletedAt !== null] };
}

export function toProductMac(keyring: Pick<Keyring, "firstKeyId" | "macKey">, row: CoveredColumns): string {
  return toRowMac(keyring, toProductMacInput(row));
}

export function isProductAuthentic(
  keyring: Pick<Keyring, "macKey">,
  row: CoveredColumns & Pick<ProductRow, "mac">,
): boolean {
  return isRowMac(keyring, toProductMacInput(row), row.mac);
}

/** Throws ROW_TAMPERED. */
export function requireAuthenticProduct(
  keyring: Pick<Keyring, "macKey">,
  row: CoveredColumns & Pick<ProductRow, "mac">,
): void {
  if (!isProductAuthentic(keyring, row)) {
    throw rowTampered({ table: "products", id: row.id, mac: row.mac });
  }
}
