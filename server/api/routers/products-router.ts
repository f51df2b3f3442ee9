import { z } from "zod";
import { getProduct } from "../../products/get-product.ts";
import { listProducts } from "../../products/list-products.ts";
import { ProductPolicy } from "../../products/product-policy.ts";
import { Product } from "../../products/product-view.ts";
import { registerProduct } from "../../products/register-product.ts";
import { removeProduct } from "../../products/remove-product.ts";
import { updateProductPolicy } from "../../products/update-product-policy.ts";
import { destroyEngineIfAny } from "../../engines/operations/destroy-engine-if-any.ts";
import { Cursor, IdempotencyKey, Limit, Name, pageOf, Slug, Uuid } from "./field-schemas.ts";
import { operatorProcedure } from "../trpc/procedures.ts";
import { runOnce } from "../trpc/run-once.ts";
import { t } from "../trpc/trpc.ts";

const Register = z.strictObject({
  slug: Slug,
  name: Name,
  policy: ProductPolicy.default({}),
  idempotencyKey: IdempotencyKey,
});
const OfProduct = z.strictObject({ productId: Uuid });
const List = z.strictObject({ cursor: Cursor, limit: Limit }).prefault({});
const UpdatePolicy = OfProduct.extend({ policy: ProductPolicy, idempotencyKey: IdempotencyKey });
const Remove = OfProduct.extend({
  destroyEngines: z.boolean().default(false),
  idempotencyKey: IdempotencyKey,
});

export const productsRouter = t.router({
  register: operatorProcedure
    .input(Register)
    .output(z.object({ product: Product, apiKey: z.string() }))
    .mutation(async (opts) => runOnce(opts, registerProduct)),
  get: operatorProcedure
    .input(OfProduct)
    .output(Product)
    .query(async ({ ctx, input }) => getProduct(ctx.call, input)),
  list: operatorProcedure
    .input(List)
    .output(pageOf(Product))
    .query(async ({ ctx, input }) => listProducts(ctx.call, input)),
  updatePolicy: operatorProcedure
    .input(UpdatePolicy)
    .output(z.object({ product: Product, overBy: z.number() }))
    .mutation(async (opts) => runOnce(opts, updateProductPolicy)),
  remove: operatorProcedure
    .input(Remove)
    .output(z.object({ productId: z.string(), removed: z.literal(true) }))
    .mutation(async (opts) =>
      runOnce(opts, async (call, input) =>
        removeProduct(call, { ...input, destroyEngine: async (engine) => destroyEngineIfAny(call, engine) }),
      ),
    ),
});
