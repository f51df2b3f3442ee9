import { z } from "zod";
import { getProduct } from "../../products/get-product.ts";
import { listProducts } from "../../products/list-products.ts";
import { ProductPolicy } from "../../products/product-policy.ts";
import { registerProduct } from "../../products/register-product.ts";
import { removeProduct } from "../../products/remove-product.ts";
import { updateProductPolicy } from "../../products/update-product-policy.ts";
import { destroyEngineIfAny } from "../../engines/operations/destroy-engine-if-any.ts";
import { Cursor, IdempotencyKey, Limit, Name, Slug, Uuid } from "./field-schemas.ts";
import { operatorProcedure } from "../trpc/procedures.ts";
import { ProductSchema } from "./product-schemas.ts";
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
const UpdatePolicy = z.strictObject({
  productId: Uuid,
  policy: ProductPolicy,
  idempotencyKey: IdempotencyKey,
});
const Remove = z.strictObject({
  productId: Uuid,
  destroyEngines: z.boolean().default(false),
  idempotencyKey: IdempotencyKey,
});

export const productsRouter = t.router({
  register: operatorProcedure
    .input(Register)
    .output(z.object({ product: ProductSchema, apiKey: z.string() }))
    .mutation(async (opts) => runOnce(opts, async (input) => registerProduct(opts.ctx.call, input))),
  get: operatorProcedure
    .input(OfProduct)
    .output(ProductSchema)
    .query(async ({ ctx, input }) => getProduct(ctx.call, input)),
  list: operatorProcedure
    .input(List)
    .output(z.object({ items: z.array(ProductSchema), nextCursor: z.string().nullable() }))
    .query(async ({ ctx, input }) => listProducts(ctx.call, input)),
  updatePolicy: operatorProcedure
    .input(UpdatePolicy)
    .output(z.object({ product: ProductSchema, overBy: z.number() }))
    .mutation(async (opts) => runOnce(opts, async (input) => updateProductPolicy(opts.ctx.call, input))),
  remove: operatorProcedure
    .input(Remove)
    .output(z.object({ productId: z.string(), removed: z.literal(true) }))
    .mutation(async (opts) => {
      const { call } = opts.ctx;
      return runOnce(opts, async (input) => {
        const { productId } = input;
        return removeProduct(call, {
          ...input,
          destroyEngine: async (userId) => destroyEngineIfAny(call, { productId, userId }),
        });
      });
    }),
});
