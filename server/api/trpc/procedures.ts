import { TRPCError, type ProcedureType } from "@trpc/server";
import { z } from "zod";
import type { CallContext } from "../../context.ts";
import type { AppContext } from "../../compose.ts";
import { DomainError } from "../../errors.ts";
import type { Caller, Scope } from "../../keys/authenticate.ts";
import { getAuditedProductId, getProductBySlug } from "../../products/get-product.ts";
import { Slug } from "../routers/field-schemas.ts";
import type { RequestContext } from "./request-context.ts";
import { t, type ProcedureMeta } from "./trpc.ts";

/** No key needed. */
export const publicProcedure = t.procedure;

const PLATFORM_SCOPE = "platform";
const DRAIN_RETRY_AFTER_MS = 1_000;

interface Call {
  type: ProcedureType;
  meta: ProcedureMeta | undefined;
}

/** Lets the caller in, or throws, and tells the work who it is. */
async function admitted<T>(
  ctx: RequestContext,
  call: Call,
  work: (admission: Admission) => Promise<T>,
): Promise<T> {
  const run = async () => work(await admit(ctx, call));
  // So that nobody hangs with the database. Of a stream this is the way to it: it bounds its own look-ups.
  return ctx.app.lease.run(run, { reachesEngine: call.meta?.reachesEngine === true });
}

interface Admission {
  caller: Caller;
  call: AppContext & CallContext;
}

async function admit(ctx: RequestContext, { type, meta }: Call): Promise<Admission> {
  const caller = await ctx.authenticate();
  const isWork = type === "mutation" ? meta?.whileDraining !== true : meta?.beginsWork === true;
  if (isWork && ctx.app.drain.draining) {
    throw new DomainError("DRAINING", "this process is shutting down and begins nothing new", {
      retryAfterMs: DRAIN_RETRY_AFTER_MS,
    });
  }
  const call: AppContext & CallContext = { ...ctx.app, actor: caller.actor, requestId: ctx.requestId };
  return { caller, call };
}

/** Who an operator acts for; the rest of the input is each procedure's own. */
const OnBehalf = z.object({ product: Slug.optional() }).optional();

// The type is of what callers send. Middlewares are dear, so that `takeProduct` reads it and not one more of them: to
// a middleware on this one `input` is undefined, whatever its type.
const onBehalfProcedure = t.procedure as unknown as ReturnType<typeof t.procedure.input<typeof OnBehalf>>;

/** For products, and for operators who name one. */
export function platformProcedure(...scopes: readonly [Scope, ...Scope[]]) {
  return onBehalfProcedure.use(async ({ ctx, getRawInput, next, ...call }) =>
    admitted(ctx, call, async (admission) => {
      const { caller } = admission;
      const { product, ...taken } = takeProduct(await getRawInput());
      const productId = await findProductId(ctx, caller, { scopes, product });
      const idempotencyScope = caller.kind === "operator" ? toOperatorScope(caller) : productId;
      return next({ ctx: { ...admission, productId, idempotencyScope }, ...taken });
    }),
  );
}

/**
 * The trail of a product, or of the installation itself for an operator who names none. A removed product's slug may be
 * another's by now, so that an operator may name an id, too.
 */
export const auditProcedure = onBehalfProcedure.use(async ({ ctx, getRawInput, next, ...call }) =>
  admitted(ctx, call, async (admission) => {
    const { caller } = admission;
    const { product, ...taken } = takeProduct(await getRawInput());
    const auditScope =
      caller.kind === "operator"
        ? await findAuditScope(ctx, product)
        : await findProductId(ctx, caller, { scopes: ["read"], product });
    return next({ ctx: { ...admission, auditScope }, ...taken });
  }),
);

/** For operators alone. */
export const operatorProcedure = t.procedure.use(async ({ ctx, next, ...call }) =>
  admitted(ctx, call, async (admission) => {
    const { caller } = admission;
    if (caller.kind !== "operator") throw new DomainError("SCOPE_MISSING", "this takes an operator's key");
    return next({ ctx: { ...admission, idempotencyScope: toOperatorScope(caller) } });
  }),
);

async function findAuditScope(ctx: RequestContext, product: string | undefined): Promise<string> {
  return product === undefined ? PLATFORM_SCOPE : getAuditedProductId(ctx.app, product);
}

async function findProductId(
  ctx: RequestContext,
  caller: Caller,
  wanted: { scopes: readonly Scope[]; product: string | undefined },
): Promise<string> {
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

interface Taken {
  product: string | undefined;
  getRawInput: () => Promise<unknown>;
}

/** The strict schemas of the procedures need not know `product`: it is taken out of what they parse. */
function takeProduct(rawInput: unknown): Taken {
  if (rawInput === undefined || (isObject(rawInput) && !Object.hasOwn(rawInput, "product"))) {
    return { product: undefined, getRawInput: async () => rawInput };
  }
  const parsed = OnBehalf.safeParse(rawInput);
  if (!parsed.success) throw new TRPCError({ code: "BAD_REQUEST", cause: parsed.error });
  const { product: _product, ...rest } = rawInput as Record<string, unknown>;
  return { product: parsed.data?.product, getRawInput: async () => rest };
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
