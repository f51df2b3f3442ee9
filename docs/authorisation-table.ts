import type { Scope } from "../db/platform-keys.ts";
import type { Reason } from "../server/errors.ts";

/*
 * Who may call what. The service does not read this table: it is a second statement of the same rules, so that a mistake
 * in the code differs from it. The test walks the table over HTTP, and `npm run docs` writes it into docs/authorisation.md.
 */

/** Scopes of a platform key, all of them; `audit` and `operator` as in `Access`; `nothing`: no key is read. */
export type Need = readonly Scope[] | "audit" | "operator" | "nothing";

/** What a key of another product gets that has all scopes. `own`: the call concerns its own product only: what the other product has is absent. */
export type Elsewhere = "ENGINE_NOT_FOUND" | "TURN_NOT_FOUND" | "own" | "-";

type Row = readonly [need: Need, elsewhere: Elsewhere];

export const CALLS: Readonly<Record<string, Row>> = {
  "engines.provision": [["lifecycle"], "own"],
  "engines.admit": [["turns"], "own"],
  "engines.get": [["read"], "ENGINE_NOT_FOUND"],
  "engines.list": [["read"], "own"],
  "engines.start": [["lifecycle"], "ENGINE_NOT_FOUND"],
  "engines.stop": [["lifecycle"], "ENGINE_NOT_FOUND"],
  "engines.restart": [["lifecycle"], "ENGINE_NOT_FOUND"],
  "engines.destroy": [["lifecycle"], "ENGINE_NOT_FOUND"],
  "engineKeys.rotate": [["lifecycle"], "ENGINE_NOT_FOUND"],
  "engineKeys.reveal": [["keys"], "ENGINE_NOT_FOUND"],
  "rpc.call": [["rpc"], "ENGINE_NOT_FOUND"],
  "rpc.getConfig": [["rpc"], "ENGINE_NOT_FOUND"],
  "rpc.setConfig": [["rpc"], "ENGINE_NOT_FOUND"],
  "rpc.reload": [["rpc"], "ENGINE_NOT_FOUND"],
  "rpc.quotaState": [["rpc"], "ENGINE_NOT_FOUND"],
  "rpc.cacheState": [["rpc"], "ENGINE_NOT_FOUND"],
  "turns.start": [["turns"], "ENGINE_NOT_FOUND"],
  "turns.execute": [["turns", "read"], "ENGINE_NOT_FOUND"],
  "turns.events": [["read"], "TURN_NOT_FOUND"],
  "turns.get": [["read"], "TURN_NOT_FOUND"],
  "turns.list": [["read"], "own"],
  "turns.cancel": [["turns"], "TURN_NOT_FOUND"],
  "turns.respond": [["turns"], "TURN_NOT_FOUND"],
  "products.register": ["operator", "-"],
  "products.get": ["operator", "-"],
  "products.list": ["operator", "-"],
  "products.updatePolicy": ["operator", "-"],
  "products.remove": ["operator", "-"],
  "platformKeys.issue": ["operator", "-"],
  "platformKeys.list": ["operator", "-"],
  "platformKeys.revoke": ["operator", "-"],
  "operators.issue": ["operator", "-"],
  "operators.list": ["operator", "-"],
  "operators.revoke": ["operator", "-"],
  "engineKeys.reseal": ["operator", "-"],
  "fleet.acceptRuntime": ["operator", "-"],
  "audit.head": ["audit", "own"],
  "audit.list": ["audit", "own"],
  "audit.verify": ["audit", "own"],
  "health.live": ["nothing", "-"],
  "health.ready": ["nothing", "-"],
  "POST /v1/engines/:userId/execute": [["turns", "read"], "ENGINE_NOT_FOUND"],
  "GET /v1/turns/:turnId/events": [["read"], "TURN_NOT_FOUND"],
  "POST /v1/turns/:turnId/cancel": [["turns"], "TURN_NOT_FOUND"],
  "POST /v1/turns/:turnId/respond": [["turns"], "TURN_NOT_FOUND"],
  "GET /v1/openapi.json": ["nothing", "-"],
  "GET /healthz": ["nothing", "-"],
  "GET /readyz": ["nothing", "-"],
};

/** The product that a call names: none; `own`, where the row's objects are; `other`, which exists too; `absent`. */
export const NAMED = ["none", "own", "other", "absent"] as const;
export type Named = (typeof NAMED)[number];

/** `elsewhere`: the call is allowed, and what it gets is in the column of that name. */
export type Answer = "allowed" | "elsewhere" | Reason;
type Answers = Readonly<Record<Named, Answer>>;

export interface KeyRow {
  /** For a reader of the docs. */
  name: string;
  /** The answers to calls that need the scopes that this key has; to other scopes; and so on. */
  scopes: Answers;
  audit: Answers;
  operator: Answers;
}

const always = (answer: Answer): Answers => ({ none: answer, own: answer, other: answer, absent: answer });
const refused = (name: string, reason: Reason): KeyRow => {
  const answers = always(reason);
  return { name, scopes: answers, audit: answers, operator: answers };
};
const namesNoProduct = (answer: Answer): Answers => ({ ...always("INVALID_INPUT"), none: answer });
const product = (name: string, answer: Answer): KeyRow => ({
  name,
  scopes: namesNoProduct(answer),
  audit: namesNoProduct(answer),
  operator: always("SCOPE_MISSING"),
});
const operator = (name: string): KeyRow => ({
  name,
  scopes: { none: "INVALID_INPUT", own: "allowed", other: "elsewhere", absent: "PRODUCT_NOT_FOUND" },
  audit: { none: "allowed", own: "allowed", other: "allowed", absent: "PRODUCT_NOT_FOUND" },
  operator: namesNoProduct("allowed"),
});

export const KEYS = {
  none: refused("no key", "INVALID_KEY"),
  garbage: refused("a text that is no key", "INVALID_KEY"),
  unknown: refused("a well-formed platform key that was never issued", "INVALID_KEY"),
  engine: refused("the key of an engine", "INVALID_KEY"),
  revoked: refused("a revoked platform key", "KEY_REVOKED"),
  expired: refused("an expired platform key", "KEY_EXPIRED"),
  removed: refused("a platform key of a removed product", "INVALID_KEY"),
  revokedOperator: refused("a revoked operator key", "KEY_REVOKED"),
  expiredOperator: refused("an expired operator key", "KEY_EXPIRED"),
  enough: product("a platform key with the scopes of the call", "allowed"),
  lacking: product("a platform key that lacks one of them, and has all others", "SCOPE_MISSING"),
  all: product("a platform key with all scopes", "allowed"),
  foreign: product("a platform key of another product, with all scopes", "elsewhere"),
  operator: operator("an operator key"),
  bootstrap: operator("the bootstrap key"),
} as const satisfies Record<string, KeyRow>;
export type KeyName = keyof typeof KEYS;

/** The scopes of a platform key that a call needs. */
export function toScopes(need: Need): readonly Scope[] {
  if (need === "audit") return ["read"];
  return need === "operator" || need === "nothing" ? [] : need;
}

/** What this key gets from this call, if the call names this product. */
export function toAnswer(need: Need, key: KeyName, named: Named): Answer {
  if (need === "nothing") return "allowed";
  const { scopes, audit, operator: operators } = KEYS[key];
  if (need === "audit") return audit[named];
  return (need === "operator" ? operators : scopes)[named];
}

/** The tables of docs/authorisation.md, as Markdown. */
export function toAuthorisationTables(): string {
  const keys = Object.values(KEYS).map(({ name, scopes, audit, operator: operators }) => [
    name,
    toCell(scopes),
    toCell(audit),
    toCell(operators),
  ]);
  const calls = Object.entries(CALLS).map(([name, [need, elsewhere]]) => [
    `\`${name}\``,
    typeof need === "string" ? need : need.map((scope) => `\`${scope}\``).join(" and "),
    elsewhere === "own" ? "its own product's" : elsewhere,
  ]);
  return [
    toTable(["key", "scopes", "audit", "operator"], keys),
    toTable(["call", "needs", "a key of another product gets"], calls),
  ].join("\n\n");
}

function toCell(answers: Answers): string {
  const byAnswer = Map.groupBy(NAMED, (named) => answers[named]);
  if (byAnswer.size === 1) return answers.none;
  return Array.from(byAnswer, ([answer, named]) => `${named.join(", ")}: ${answer}`).join("; ");
}

function toTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const lines = [head, head.map(() => "---"), ...rows];
  return lines.map((cells) => `| ${cells.join(" | ")} |`).join("\n");
}
