import type { Db } from "../../db/client.ts";
import { insertProduct, type NewProduct } from "../../db/products.ts";
import { openKeyring } from "../../server/keys/keyring.ts";
import { toProductMac } from "../../server/products/product-mac.ts";

/** Inserts a product with the MAC that the service would give it, but without a key and an audit row. */
export async function insertTestProduct(
  db: Db,
  masterKeys: string,
  product: Omit<NewProduct, "mac">,
): Promise<void> {
  const mac = toProductMac(openKeyring(masterKeys), { ...product, deletedAt: null });
  await insertProduct(db, { ...product, mac });
}
