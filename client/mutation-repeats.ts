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
 * What becomes of a mutation whose answer was lost.
 *
 * - `keyed`: the client gives it an idempotency key unless the caller did, and sends it again;
 * - `harmless`: carried out twice it has the effect of once, so it is sent again as it is;
 * - `once`: sent again only with a key of the caller's. A key costs the server two commits, too much for every
 *   call that is passed on to an engine.
 */
type Repeat = "keyed" | "harmless" | "once";

const REPEATS: Readonly<Record<MutationPath, Repeat>> = {
  "engines.provision": "keyed",
  "engines.start": "keyed",
  "engines.stop": "keyed",
  "engines.restart": "keyed",
  "engines.destroy": "keyed",
  "engineKeys.rotate": "keyed",
  "engineKeys.reveal": "harmless",
  "rpc.call": "once",
  "rpc.setConfig": "keyed",
  "rpc.reload": "keyed",
  "turns.start": "harmless",
  "turns.cancel": "harmless",
  "products.register": "keyed",
  "products.updatePolicy": "keyed",
  "products.remove": "keyed",
  "platformKeys.issue": "keyed",
  "platformKeys.revoke": "keyed",
};

/** A mutation that this version does not know is sent once. */
export function findRepeat(path: string): Repeat {
  return Object.hasOwn(REPEATS, path) ? REPEATS[path as MutationPath] : "once";
}
