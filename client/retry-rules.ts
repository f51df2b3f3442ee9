import type { AppRouter } from "../server/api/routers/router.ts";

type PathsOf<Node, Type extends string> = {
  [Name in keyof Node & string]: Node[Name] extends { _def: { type: infer Found } }
    ? Found extends Type
      ? Name
      : never
    : `${Name}.${PathsOf<Node[Name], Type>}`;
}[keyof Node & string];

export type MutationPath = PathsOf<AppRouter["_def"]["record"], "mutation">;

/**
 * What the client does when the answer to a mutation is lost.
 *
 * - `keyed`: send it again. The client adds an idempotency key if the caller gave none.
 * - `idempotent`: send it again unchanged. Handled twice, it has the effect of once.
 * - `once`: send it again only if the caller gave an idempotency key. A key costs the server two commits, which is too
 *   much for every call to an engine.
 */
type RetryRule = "keyed" | "idempotent" | "once";

const RULES: Readonly<Record<MutationPath, RetryRule>> = {
  "engines.provision": "keyed",
  "engines.admit": "idempotent",
  "engines.start": "keyed",
  "engines.stop": "keyed",
  "engines.restart": "keyed",
  "engines.destroy": "keyed",
  "engineKeys.rotate": "keyed",
  "engineKeys.reveal": "idempotent",
  "rpc.call": "once",
  "rpc.setConfig": "keyed",
  "rpc.reload": "keyed",
  "turns.start": "idempotent",
  "turns.cancel": "idempotent",
  "turns.respond": "keyed",
  "products.register": "keyed",
  "products.updatePolicy": "keyed",
  "products.remove": "keyed",
  "platformKeys.issue": "keyed",
  "platformKeys.revoke": "keyed",
  "operators.issue": "keyed",
  "operators.revoke": "keyed",
  "engineKeys.reseal": "keyed",
  "fleet.acceptRuntime": "keyed",
};

/** `once` for a mutation that this version of the client does not know. */
export function findRetryRule(path: string): RetryRule {
  return Object.hasOwn(RULES, path) ? RULES[path as MutationPath] : "once";
}
