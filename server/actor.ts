export const ACTOR_KINDS = ["platform_key", "operator", "system"] as const;

/** Who made the change: a product's key, an operator by name, or the reconciler. */
export interface Actor {
  kind: (typeof ACTOR_KINDS)[number];
  id: string;
  name: string;
}
