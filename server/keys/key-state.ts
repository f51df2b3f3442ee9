import type { Db } from "../../db/client.ts";
import { findOperatorState, type OperatorState } from "../../db/operators.ts";
import { findPlatformKeyState, type PlatformKeyState } from "../../db/platform-keys.ts";
import type { TamperReports } from "../audit/tamper-reports.ts";
import { isProductAuthentic } from "../products/product-mac.ts";
import { isOperatorAuthentic, isPlatformKeyAuthentic } from "./key-mac.ts";
import type { Keyring } from "./keyring.ts";

/** The kinds of key that callers of this service have. */
export type CallerKeyKind = KeyState["kind"];

/** `isAuthentic` false: the row of the key does not verify, so nothing of it counts. */
export type KeyState = ((PlatformKeyState & { isProductAuthentic: boolean }) | OperatorState) & {
  isAuthentic: boolean;
};

interface KeyStateContext {
  db: Db;
  keyring: Pick<Keyring, "macKey">;
  tamperReports: Pick<TamperReports, "report">;
}

/** Reads the state of a key by its hash, and checks that the rows of the key and its product are the service's own. undefined: no key has the hash. */
export async function readKeyState(
  ctx: KeyStateContext,
  kind: CallerKeyKind,
  hash: string,
): Promise<KeyState | undefined> {
  if (kind === "operator") {
    const state = await findOperatorState(ctx.db, hash);
    if (state === undefined) return undefined;
    return report(ctx, { ...state, isAuthentic: isOperatorAuthentic(ctx.keyring, state) });
  }
  const state = await findPlatformKeyState(ctx.db, hash);
  if (state === undefined) return undefined;
  return report(ctx, {
    ...state,
    isAuthentic: isPlatformKeyAuthentic(ctx.keyring, state),
    isProductAuthentic: isProductAuthentic(ctx.keyring, state.product),
  });
}

function report(ctx: KeyStateContext, state: KeyState): KeyState {
  const table = state.kind === "operator" ? "operators" : "platform_keys";
  if (!state.isAuthentic) ctx.tamperReports.report({ table, id: state.id, mac: state.mac });
  return state;
}
