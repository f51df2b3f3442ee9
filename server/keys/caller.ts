import type { Scope } from "../../db/platform-keys.ts";
import type { Actor } from "../audit/audit-entry.ts";
import type { ProductPolicy } from "../products/product-policy.ts";

/** A product, by one of its platform keys. It sees its own product only. */
export interface ProductCaller {
  kind: "platform_key";
  keyId: string;
  name: string;
  productId: string;
  policy: ProductPolicy;
  scopes: readonly Scope[];
  actor: Actor;
}

/** An operator, who names the product in the input. */
export interface OperatorCaller {
  kind: "operator";
  keyId: string;
  name: string;
  actor: Actor;
}

export type Caller = ProductCaller | OperatorCaller;

/** The product or the operator whose share of the service a call uses. */
export function toOwner(caller: Caller): string {
  return caller.kind === "platform_key" ? caller.productId : caller.actor.name;
}
