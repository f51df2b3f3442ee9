import { z } from "zod";
import type { AppContext, CallContext } from "../context.ts";
import { DomainError } from "../errors.ts";
import type { Caller, Scope } from "../keys/authenticate.ts";
import { getProductBySlug } from "../products/get-product.ts";
import { Slug } from "./field-schemas.ts";
import type { RequestContext } from "./request-context.ts";
import { t } from "./trpc.ts";

/** No key needed. */
export const publicProcedure = t.procedure;

const PLATFORM_SCOPE = "platform";
const DRAIN_RETRY_AFTER_MS = 1_000;

const keyedProcedure = t.procedure.use(async ({ ctx, type, meta, next }) => {
  const admit = async () => {
    const caller = await ctx.authenticate();
    const isWork = type === "mutation" ? meta?.whileDraining !== true : meta?.beginsWork === true;
    if (isWork && ctx.app.drain.draining) {
      throw new DomainError("DRAINING", "this process is shutting down and begins nothing new", {
        retryAfterMs: DRAIN_RETRY_AFTER_MS,
      });
    }
    const call: AppContext & CallContext = { ...ctx.app, actor: caller.actor, requestId: ctx.requestId };
    return next({ ctx: { caller, call } });
  };
  // A stream is bounded by its reader; everything else by the lease, so that nobody hangs with the database.
  if (type === "subscription") return admit();
  return ctx.app.lease.run(admit, { reachesEngine: meta?.reachesEngine === true });
});

/** Who an operator acts for; the rest of the input is each procedure's own. */
const OnBehalf = z.object({ product: Slug.optional() }).optional();

// The strict schemas of the procedures need not know `product`: it is taken out of what they parse.
const onBehalfProcedure = keyedProcedure
  .input(OnBehalf)
  .use(async ({ getRawInput, next }) =>
    next({ getRawInput: async () => withoutProduct(await getRawInput()) }),
  );

/** For products, and for operators who name one. */
export function platformProcedure(...scopes: readonly [Scope, ...Scope[]]) {
  return onBehalfProcedure.use(async ({ ctx, input, next }) => {
    const productId = await findProductId(ctx, { scopes, product: input?.product });
    const claimScope = ctx.caller.kind === "operator" ? toOperatorScope(ctx.caller) : productId;
    return next({ ctx: { productId, claimScope }, input: undefined });
  });
}

/** The trail of a product, or of the installation itself for an operator who names none. */
export const auditProcedure = onBehalfProcedure.use(async ({ ctx, input, next }) => {
  const product = input?.product;
  const isWhole = ctx.caller.kind === "operator" && product === undefined;
  const auditScope = isWhole ? PLATFORM_SCOPE : await findProductId(ctx, { scopes: ["read"], product });
  return next({ ctx: { auditScope }, input: undefined });
});

/** For operators alone. */
export const operatorProcedure = keyedProcedure.use(async ({ ctx, next }) => {
  if (ctx.caller.kind !== "operator") throw new DomainError("SCOPE_MISSING", "this takes an operator's key");
  return next({ ctx: { claimScope: toOperatorScope(ctx.caller) } });
});

async function findProductId(
  ctx: RequestContext & { caller: Caller },
  wanted: { scopes: readonly Scope[]; product: string | undefined },
): Promise<string> {
  const { caller } = ctx;
  if (caller.kind === "operator") {
    if (wanted.product === undefined) throw badProduct("an operator names the product");
    return (await getProductBySlug(ctx.app, wanted.product)).productId;
  }
  if (wanted.product !== undefined) throw badProduct("a product's key acts for its own product");
  const missing = wanted.scopes.find((scope) => !caller.scopes.includes(scope));
  if (missing !== undefined) throw new DomainError("SCOPE_MISSING", `this key lacks the scope ${missing}`);
  return caller.productId;
}

/** Whose idempotency keys an operator's are. */
function toOperatorScope(caller: Caller): string {
  return `operator:${caller.actor.name}`;
}

function badProduct(message: string): DomainError {
  return new DomainError("INVALID_INPUT", message, { issues: [{ path: "product", message }] });
}

function withoutProduct(rawInput: unknown): unknown {
  if (typeof rawInput !== "object" || rawInput === null || Array.isArray(rawInput)) return rawInput;
  const { product: _product, ...rest } = rawInput as Record<string, unknown>;
  return rest;
}
