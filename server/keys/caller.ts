import type { Scope } from "../../db/platform-keys.ts";
import type { Actor } from "../actor.ts";
import type { ProductPolicy } from "../products/product-policy.ts";

/** A product, by one of its platform keys. It sees its own product only. */
export interface ProductCaller {
  kind: "platform_key";
  keyId: string;
  name: string;
  productId: string;
  /** As old as the state of the key. */
  policy: ProductPolicy;
  scopes: readonly Scope[];
  actor: Actor;
}

/** The name and id of the operator whose key is in the configuration. No other operator can have the name. */
export const BOOTSTRAP_NAME = "bootstrap";

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
  return caller.kind === "platform_key" ? caller.productId : `operator:${caller.keyId}`;
}
