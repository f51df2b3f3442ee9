import { listHalfRemovedProducts } from "../../db/products.ts";
import type { BaseContext } from "../context.ts";
import { destroyAllEngines } from "./remove-product.ts";

const BATCH = 100;

export interface FinishRemovalsInput {
  destroyEngine(engine: { productId: string; userId: string }): Promise<void>;
}

/** Destroys the engines that are left of removed products, whose removal was cut short. Running it twice is harmless. */
export async function finishRemovals(
  ctx: Pick<BaseContext, "db">,
  input: FinishRemovalsInput,
): Promise<void> {
  for (const productId of await listHalfRemovedProducts(ctx.db, BATCH)) {
    const destroyEngine = async (userId: string) => input.destroyEngine({ productId, userId });
    await destroyAllEngines(ctx, { productId, destroyEngine });
  }
}
