import type { Db } from "../../../db/client.ts";
import { updateEngineIf, type EnginePatch, type EngineRow } from "../../../db/engines.ts";
import { MOVES, type Move } from "./moves.ts";

export interface MoveInput {
  /** As the caller read it: the move needs an unchanged `desired`. */
  row: Pick<EngineRow, "id" | "desired">;
  move: Move;
  /** Of the reconciler's lease. Operations lock the row instead and leave it out. */
  fencingToken?: number;
  patch?: EnginePatch;
  /** With a patch that has a new MAC: see `toProvenPatch`. */
  mac?: string | null | undefined;
}

/**
 * The only function that changes `status`. undefined: another writer won, or the table forbids the move; nothing is
 * written. The caller writes the audit row in the same transaction.
 */
export async function moveEngine(tx: Db, input: MoveInput): Promise<EngineRow | undefined> {
  const { row, fencingToken, mac } = input;
  const { from, to } = MOVES[input.move];
  const condition = { id: row.id, statusIn: from, desired: row.desired, fencingToken, mac };
  return updateEngineIf(tx, condition, { statusReason: null, ...input.patch, status: to });
}
