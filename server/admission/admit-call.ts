import type { Scope } from "../../db/platform-keys.ts";
import type { ShownEngine } from "../../db/shown-engines.ts";
import type { BaseContext } from "../context.ts";
import type { EngineReads } from "../engines/access/engine-reads.ts";
import { DomainError } from "../errors.ts";
import type { Caller, ProductCaller } from "../keys/caller.ts";
import type { Keyring } from "../keys/keyring.ts";
import type { ProductPolicy } from "../products/product-policy.ts";
import { getAuditedProductId, getProductBySlug } from "../products/get-product.ts";
import type { DrainState } from "../replicas/drain-state.ts";
import type { LimitedCall, RateLimits } from "./rate-limits.ts";

type AdmissionContext = Pick<BaseContext, "db"> & {
  drain: DrainState;
  keyring: Keyring;
  rateLimits: Pick<RateLimits, "count">;
  shownEngines: Pick<EngineReads<ShownEngine>, "find">;
};

/**
 * Who may make the call: a product's key with all of these scopes, or an operator who names the product; `audit` is
 * the same for reading an audit log; `operator` is for operators only.
 */
export type Access = readonly Scope[] | "audit" | "operator";

export interface CallToAdmit<Needed extends Access = Access> {
  access: Needed;
  /** The call begins work, so it is refused while the replica drains. */
  beginsWork: boolean;
  /** The product that the caller named: a slug, or for `audit` also an id. */
  product?: string | undefined;
  /** Whether this call of the product would start a turn. Not called for an operator, whose calls are not counted. */
  startsTurn?: ((productId: string) => boolean) | undefined;
  /** The user whose engine is read in the same round trip. */
  engineOf?: string | undefined;
  /** Called with what the product's rate limits have left, also before a refusal. */
  onRates?: LimitedCall["onRates"];
}

/**
 * A call for one product, with its policy as it was at most 500 ms ago. Idempotency keys of different scopes have nothing
 * to do with each other.
 */
export interface ProductAdmission {
  productId: string;
  policy: ProductPolicy;
  idempotencyScope: string;
  /** Of the user in `engineOf`. undefined: this user has none, or the call names no user. */
  engine: ShownEngine | undefined;
}

export interface AuditAdmission {
  /** The chain to read: a product's id, or `platform`. */
  auditScope: string;
}

export type OperatorAdmission = Pick<ProductAdmission, "idempotencyScope">;

/** What a platform key needs to read the audit log of its product. */
const AUDIT_SCOPES: readonly Scope[] = ["read"];
/** The chain of what operators do to the installation. */
const PLATFORM_AUDIT_SCOPE = "platform";
const DRAIN_RETRY_AFTER_MS = 1_000;

/**
 * Decides whether an authenticated caller may make this call now, and for which product. Knows no transport. Only where
 * the product has a rate limit does the decision take a statement.
 *
 * @throws DRAINING, SCOPE_MISSING, PRODUCT_NOT_FOUND, ROW_TAMPERED, RATE_LIMITED; INVALID_INPUT for a product that is
 *   missing or not allowed; every error of the database.
 */
export async function admitCall(
  ctx: AdmissionContext,
  caller: Caller,
  call: CallToAdmit<readonly Scope[]>,
): Promise<ProductAdmission>;
export async function admitCall(
  ctx: AdmissionContext,
  caller: Caller,
  call: CallToAdmit<"audit">,
): Promise<AuditAdmission>;
export async function admitCall(
  ctx: AdmissionContext,
  caller: Caller,
  call: CallToAdmit<"operator">,
): Promise<OperatorAdmission>;
export async function admitCall(
  ctx: AdmissionContext,
  caller: Caller,
  call: CallToAdmit,
): Promise<ProductAdmission | AuditAdmission | OperatorAdmission> {
  if (call.beginsWork && ctx.drain.draining) throw draining();
  if (caller.kind === "operator") {
    if (call.access === "operator") return { idempotencyScope: toOperatorScope(caller) };
    return admitOperator(ctx, caller, call);
  }
  const refusal = findRefusal(caller, call);
  if (refusal !== undefined) {
    // It counts like any other call: a flood of them must not cost more than a flood of calls that are allowed.
    await countCall(ctx, caller, { onRates: call.onRates });
    throw refusal;
  }
  const { productId, policy } = caller;
  const engine = await countCall(ctx, caller, call);
  if (call.access === "audit") return { auditScope: productId };
  return { productId, policy, idempotencyScope: productId, engine };
}

async function admitOperator(
  ctx: AdmissionContext,
  caller: Caller,
  { access, product, engineOf: userId }: CallToAdmit,
): Promise<ProductAdmission | AuditAdmission> {
  if (access === "audit") return { auditScope: await findAuditScope(ctx, product) };
  if (product === undefined) throw badProduct("an operator must name the product of this call by its slug");
  const { productId, policy } = await getProductBySlug(ctx, product);
  const engine = userId === undefined ? undefined : await ctx.shownEngines.find({ productId, userId });
  return { productId, policy, idempotencyScope: toOperatorScope(caller), engine };
}

/** Why this key may not make the call, however few calls its product has made. */
function findRefusal(caller: ProductCaller, { access, product }: CallToAdmit): DomainError | undefined {
  if (access === "operator") {
    return new DomainError("SCOPE_MISSING", "only an operator key may make this call");
  }
  if (product !== undefined) {
    return badProduct("a platform key acts for its own product only: leave it out");
  }
  const needed = access === "audit" ? AUDIT_SCOPES : access;
  const missing = needed.find((scope) => !caller.scopes.includes(scope));
  if (missing === undefined) return undefined;
  return new DomainError("SCOPE_MISSING", `this key lacks the scope "${missing}": use a key that has it`);
}

/** Counts the call if a limit concerns it, and reads the engine that it asks for. */
async function countCall(
  ctx: AdmissionContext,
  { productId, policy }: ProductCaller,
  { startsTurn, engineOf, onRates }: Pick<CallToAdmit, "startsTurn" | "engineOf" | "onRates">,
): Promise<ShownEngine | undefined> {
  const limits = { requests: policy.rateLimitRpm, turns: policy.turnLimitRpm };
  const isTurn = limits.turns !== undefined && startsTurn?.(productId) === true;
  if (limits.requests !== undefined || isTurn) {
    return ctx.rateLimits.count({ productId, limits, startsTurn: isTurn, engineOf, onRates });
  }
  return engineOf === undefined ? undefined : ctx.shownEngines.find({ productId, userId: engineOf });
}

async function findAuditScope(ctx: AdmissionContext, product: string | undefined): Promise<string> {
  return product === undefined ? PLATFORM_AUDIT_SCOPE : getAuditedProductId(ctx, product);
}

/** An operator's idempotency keys belong to its key, whichever product a call is for. Names can be used again. */
function toOperatorScope(caller: Caller): string {
  return `operator:${caller.keyId}`;
}

function badProduct(message: string): DomainError {
  return new DomainError("INVALID_INPUT", message, { issues: [{ path: "product", message }] });
}

function draining(): DomainError {
  const message = "this replica is draining and takes no new work: try again at another one";
  return new DomainError("DRAINING", message, { retryAfterMs: DRAIN_RETRY_AFTER_MS });
}
