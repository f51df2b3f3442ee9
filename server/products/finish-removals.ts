import { listHalfRemovedProducts } from "../../db/products.ts";
import type { BaseContext } from "../context.ts";
import { destroyAllEngines, type RemoveProductInput } from "./remove-product.ts";

const BATCH = 100;

/** Destroys the remaining engines of products whose removal was cut short. Running it twice is harmless. */
export async function finishRemovals(
  ctx: Pick<BaseContext, "db">,
  { destroyEngine }: Pick<RemoveProductInput, "destroyEngine">,
): Promise<void> {
  for (const productId of await listHalfRemovedProducts(ctx.db, BATCH)) {
    await destroyAllEngines(ctx, { productId, destroyEngine });
  }
}
