import type { Db } from "../../db/client.ts";
import { findOperatorState, type OperatorState } from "../../db/operators.ts";
import { findPlatformKeyState, type PlatformKeyState } from "../../db/platform-keys.ts";
import type { TamperReports } from "../audit/tamper-reports.ts";
import { isOperatorAuthentic, isPlatformKeyAuthentic } from "./key-mac.ts";
import type { Keyring } from "./keyring.ts";

/** The kinds of key that callers of this service have. */
export type CallerKeyKind = KeyState["kind"];

/** `isAuthentic` false: the row does not verify, so nothing of it counts. */
export type KeyState = (PlatformKeyState | OperatorState) & { isAuthentic: boolean };

interface KeyStateContext {
  db: Db;
  keyring: Pick<Keyring, "macKey">;
  tamperReports: Pick<TamperReports, "report">;
}

/** Reads the state of a key by its hash, and checks that the row is the service's own. undefined: no key has the hash. */
export async function readKeyState(
  ctx: KeyStateContext,
  kind: CallerKeyKind,
  hash: string,
): Promise<KeyState | undefined> {
  if (kind === "operator") {
    const state = await findOperatorState(ctx.db, hash);
    return state && toChecked(ctx, state, isOperatorAuthentic(ctx.keyring, state));
  }
  const state = await findPlatformKeyState(ctx.db, hash);
  return state && toChecked(ctx, state, isPlatformKeyAuthentic(ctx.keyring, state));
}

function toChecked(
  ctx: KeyStateContext,
  state: PlatformKeyState | OperatorState,
  isAuthentic: boolean,
): KeyState {
  const table = state.kind === "operator" ? "operators" : "platform_keys";
  if (!isAuthentic) ctx.tamperReports.report({ table, id: state.id, mac: state.mac });
  return { ...state, isAuthentic };
}
