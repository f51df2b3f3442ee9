import { TRPCError, type ProcedureType } from "@trpc/server";
import { z } from "zod";
import { admitCall } from "../../admission/admit-call.ts";
import type { AppContext } from "../../compose.ts";
import type { CallContext } from "../../context.ts";
import type { Scope } from "../../../db/platform-keys.ts";
import type { Caller } from "../../keys/caller.ts";
import { Slug } from "../routers/field-schemas.ts";
import { toNeeds } from "./call-needs.ts";
import type { RequestContext } from "./request-context.ts";
import { noteSources } from "./input-text.ts";
import { t, type ProcedureMeta } from "./trpc.ts";

/** No key needed. */
export const publicProcedure = t.procedure;

/** The input of each procedure that an operator calls for a product; the procedure's own schema has the rest. */
export const ProductField = Slug.optional().describe(
  "The slug of the product that the call is for. An operator key must name it; a platform key must not, because it acts for its own product.",
);
const WithProduct = z.object({ product: ProductField }).optional();

// This adds `product` to the input's type only. A middleware that parses it would cost time on each call, so the one
// that admits the call takes it out of the raw input. There, `input` is undefined, whatever its type.
const productProcedure = t.procedure as unknown as ReturnType<typeof t.procedure.input<typeof WithProduct>>;

/** For a product's keys with all of these scopes, and for operators who name a product. */
export function platformProcedure(...scopes: readonly [Scope, ...Scope[]]) {
  return productProcedure
    .meta({ access: scopes })
    .use(async ({ ctx, getRawInput, next, type, meta, batchIndex }) =>
      runWithinLease(ctx, meta, async () => {
        const caller = await ctx.authenticate();
        const rawInput = await getRawInput();
        if (isObject(rawInput)) noteSources(rawInput, () => ctx.findInputText(batchIndex));
        const { product, ...rest } = takeProduct(rawInput);
        const { moreScopes, ...needs } = toNeeds(ctx.app, meta ?? {}, isObject(rawInput) ? rawInput : {});
        const admission = await admitCall(ctx.app, caller, {
          ...needs,
          access: moreScopes.length === 0 ? scopes : [...scopes, ...moreScopes],
          beginsWork: isWork(type, meta),
          product,
          onRates: ctx.noteRates,
        });
        return next({ ctx: { call: toCall(ctx, caller), ...admission }, ...rest });
      }),
    );
}

/** For reading a product's audit log, or as an operator who names no product, that of the platform. */
export const auditProcedure = productProcedure
  .meta({ access: "audit" })
  .use(async ({ ctx, getRawInput, next, type, meta }) =>
    runWithinLease(ctx, meta, async () => {
      const caller = await ctx.authenticate();
      const { product, ...rest } = takeProduct(await getRawInput());
      const beginsWork = isWork(type, meta);
      const call = { access: "audit", beginsWork, product, onRates: ctx.noteRates } as const;
      const admission = await admitCall(ctx.app, caller, call);
      return next({ ctx: { call: toCall(ctx, caller), ...admission }, ...rest });
    }),
  );

/** For operators only. */
export const operatorProcedure = t.procedure
  .meta({ access: "operator" })
  .use(async ({ ctx, next, type, meta }) =>
    runWithinLease(ctx, meta, async () => {
      const caller = await ctx.authenticate();
      const admission = await admitCall(ctx.app, caller, {
        access: "operator",
        beginsWork: isWork(type, meta),
        onRates: ctx.noteRates,
      });
      return next({ ctx: { call: toCall(ctx, caller), ...admission } });
    }),
  );

/**
 * Bounds the call, so that a database that hangs does not hold its caller. A subscription's procedure returns before
 * the stream begins, and the stream bounds its own queries.
 */
async function runWithinLease<T>(
  ctx: RequestContext,
  meta: ProcedureMeta | undefined,
  work: () => Promise<T>,
): Promise<T> {
  return ctx.app.lease.run(work, { reachesEngine: meta?.reachesEngine === true });
}

export function isWork(type: ProcedureType, meta: ProcedureMeta | undefined): boolean {
  return type === "mutation" ? meta?.whileDraining !== true : meta?.beginsWork === true;
}

function toCall(ctx: RequestContext, { actor }: Caller): AppContext & CallContext {
  return { ...ctx.app, actor, requestId: ctx.requestId };
}

interface TakenProduct {
  product: string | undefined;
  getRawInput: () => Promise<unknown>;
}

/** Takes `product` out of the input, because the procedures' strict schemas do not have it. */
function takeProduct(rawInput: unknown): TakenProduct {
  if (rawInput === undefined || (isObject(rawInput) && !Object.hasOwn(rawInput, "product"))) {
    return { product: undefined, getRawInput: async () => rawInput };
  }
  const parsed = WithProduct.safeParse(rawInput);
  if (!parsed.success) throw new TRPCError({ code: "BAD_REQUEST", cause: parsed.error });
  const { product: _product, ...rest } = rawInput as Record<string, unknown>;
  return { product: parsed.data?.product, getRawInput: async () => rest };
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
