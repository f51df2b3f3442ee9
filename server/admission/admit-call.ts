import type { Scope } from "../../db/platform-keys.ts";
import type { BaseContext } from "../context.ts";
import { DomainError } from "../errors.ts";
import type { Caller } from "../keys/caller.ts";
import type { ProductPolicy } from "../products/product-policy.ts";
import type { Keyring } from "../keys/keyring.ts";
import { getAuditedProductId, getProductBySlug } from "../products/get-product.ts";
import type { DrainState } from "../replicas/drain-state.ts";

type AdmissionContext = Pick<BaseContext, "db"> & { drain: DrainState; keyring: Keyring };

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
}

/** A call for one product, with its policy as it was at most 500 ms ago. Idempotency keys of different scopes have nothing to do with each other. */
export interface ProductAdmission {
  productId: string;
  policy: ProductPolicy;
  idempotencyScope: string;
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
 * Decides whether an authenticated caller may make this call now, and for which product. Knows no transport.
 *
 * @throws DRAINING, SCOPE_MISSING, PRODUCT_NOT_FOUND, ROW_TAMPERED; INVALID_INPUT for a product that is missing or not allowed.
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
  { access, beginsWork, product }: CallToAdmit,
): Promise<ProductAdmission | AuditAdmission | OperatorAdmission> {
  if (beginsWork && ctx.drain.draining) throw draining();
  if (access === "operator") {
    if (caller.kind === "operator") return { idempotencyScope: toOperatorScope(caller) };
    throw new DomainError("SCOPE_MISSING", "only an operator key may make this call");
  }
  if (caller.kind === "operator") {
    if (access === "audit") return { auditScope: await findAuditScope(ctx, product) };
    if (product === undefined) throw badProduct("an operator must name the product of this call by its slug");
    const { productId, policy } = await getProductBySlug(ctx, product);
    return { productId, policy, idempotencyScope: toOperatorScope(caller) };
  }
  if (product !== undefined) throw badProduct("a platform key acts for its own product only: leave it out");
  const missing = (access === "audit" ? AUDIT_SCOPES : access).find(
    (scope) => !caller.scopes.includes(scope),
  );
  if (missing !== undefined) {
    throw new DomainError("SCOPE_MISSING", `this key lacks the scope "${missing}": use a key that has it`);
  }
  const { productId, policy } = caller;
  return access === "audit" ? { auditScope: productId } : { productId, policy, idempotencyScope: productId };
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
