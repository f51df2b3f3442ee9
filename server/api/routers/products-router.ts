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
import { OPERATING } from "./reason-groups.ts";
import { operatorProcedure } from "../trpc/procedures.ts";
import { runOnce } from "../trpc/run-once.ts";
import { t } from "../trpc/trpc.ts";

const Register = z.strictObject({
  slug: Slug.describe(
    "The short name of the product, by which operators name it in calls. No other product that is not removed has it.",
  ),
  name: Name.describe("The name of the product for people."),
  policy: ProductPolicy.default({}).describe(
    "The limits of the product. Without it, the installation's defaults.",
  ),
  idempotencyKey: IdempotencyKey,
});
const RegisteredProduct = z.object({
  product: Product.describe("The new product."),
  apiKey: z
    .string()
    .describe(
      "The product's first platform key, in plain text. The service keeps only its hash: store it now.",
    ),
});
const OfProduct = z.strictObject({ productId: Uuid.describe("The id of the product.") });
const List = z.strictObject({ cursor: Cursor, limit: Limit }).prefault({});
const UpdatePolicy = OfProduct.extend({
  policy: ProductPolicy.describe(
    "The new policy as a whole: a limit that it leaves out is unlimited or the default from now on. Existing engines, live turns and open streams stay as they are.",
  ),
  idempotencyKey: IdempotencyKey,
});
const UpdatedPolicy = z.object({
  product: Product.describe("The product with its new policy."),
  overBy: z
    .int()
    .describe(
      "How many engines the product has above its new `maxEngines`; 0 if none. None of them is destroyed.",
    ),
});
const Remove = OfProduct.extend({
  destroyEngines: z
    .boolean()
    .default(false)
    .describe("Destroy the engines of the product, with their data. false: refuse while it has engines."),
  idempotencyKey: IdempotencyKey,
});
const RemovedProduct = z.object({
  productId: z.string().meta({ format: "uuid" }).describe("The product that is removed."),
  removed: z.literal(true).describe("Always true: its keys are refused, and its engines are destroyed."),
});

export const productsRouter = t.router({
  register: operatorProcedure
    .meta({
      summary: "Registers a product, and returns it with its first platform key.",
      reasons: ["PRODUCT_SLUG_EXISTS", "IMAGE_NOT_PINNED"],
    })
    .input(Register)
    .output(RegisteredProduct)
    .mutation(async (opts) => runOnce(opts, registerProduct)),
  get: operatorProcedure
    .meta({ summary: "Returns a product, also a removed one.", reasons: ["PRODUCT_NOT_FOUND"] })
    .input(OfProduct)
    .output(Product)
    .query(async ({ ctx, input }) => getProduct(ctx.call, input)),
  list: operatorProcedure
    .meta({ summary: "Lists the products that are not removed, in the order of their registration." })
    .input(List)
    .output(pageOf(Product))
    .query(async ({ ctx, input }) => listProducts(ctx.call, input)),
  updatePolicy: operatorProcedure
    .meta({
      summary: "Replaces the policy of a product.",
      reasons: ["PRODUCT_NOT_FOUND", "IMAGE_NOT_PINNED", "ROW_TAMPERED"],
    })
    .input(UpdatePolicy)
    .output(UpdatedPolicy)
    .mutation(async (opts) => runOnce(opts, updateProductPolicy)),
  remove: operatorProcedure
    .meta({
      summary: "Removes a product: its keys are refused from then on.",
      description:
        "With `destroyEngines: true` the call also destroys its engines, and answers when they are gone.",
      reasons: [...OPERATING, "ENGINE_BUSY", "PRODUCT_NOT_FOUND", "PRODUCT_NOT_EMPTY"],
    })
    .input(Remove)
    .output(RemovedProduct)
    .mutation(async (opts) =>
      runOnce(opts, async (call, input) =>
        removeProduct(call, { ...input, destroyEngine: async (engine) => destroyEngineIfAny(call, engine) }),
      ),
    ),
});
