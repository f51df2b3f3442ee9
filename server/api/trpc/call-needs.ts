import type { Scope } from "../../../db/platform-keys.ts";
import type { CallToAdmit } from "../../admission/admit-call.ts";
import type { AppContext } from "../../compose.ts";
import { UserId } from "../routers/field-schemas.ts";
import type { ProcedureMeta } from "./trpc.ts";

type Needs = Pick<CallToAdmit, "startsTurn" | "engineOf"> & { moreScopes: readonly Scope[] };

const NOTHING: Needs = { moreScopes: [] };
/** What `autoProvision` needs besides the scopes of its procedure. */
const PROVISIONING: readonly Scope[] = ["lifecycle"];

/** What the admission of a call depends on in its input. The input is not checked yet, so it may be anything. */
export function toNeeds(app: Pick<AppContext, "turns">, meta: ProcedureMeta, input: object): Needs {
  if (meta.startsTurn === true) return { ...NOTHING, startsTurn: toTurnStart(app, input) };
  if (meta.admitsEngine !== true) return NOTHING;
  const { userId, autoProvision } = input as Record<string, unknown>;
  const user = UserId.safeParse(userId);
  return {
    moreScopes: autoProvision === true ? PROVISIONING : [],
    engineOf: user.success ? user.data : undefined,
  };
}

/** A call with a cursor reads on, and one that names a live turn joins it. Neither of them starts a turn. */
function toTurnStart({ turns }: Pick<AppContext, "turns">, input: object): Needs["startsTurn"] {
  const { turnId, lastEventId } = input as Record<string, unknown>;
  if (lastEventId !== undefined) return undefined;
  return (productId) => typeof turnId !== "string" || turns.find(productId, turnId) === undefined;
}
