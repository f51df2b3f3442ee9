import type { Scope } from "../../db/platform-keys.ts";
import type { RateKind } from "../../db/rate-windows.ts";
import type { Actor } from "../actor.ts";
import type { ProductPolicy } from "../products/product-policy.ts";

/** A product, by one of its platform keys. It sees its own product only. */
export interface ProductCaller {
  kind: "platform_key";
  keyId: string;
  name: string;
  productId: string;
  policy: ProductPolicy;
  scopes: readonly Scope[];
  /** The product's rate limits, as old as the state of the key; null: there is none. */
  limits: Readonly<Record<RateKind, number | null>>;
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
