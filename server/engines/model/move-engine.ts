import type { Db } from "../../../db/client.ts";
import { updateEngineIf, type EnginePatch, type EngineRow } from "../../../db/engines.ts";
import { MOVES, type Move } from "./moves.ts";

export interface MoveInput {
  /** As it was read: the move is made only while `desired` is still the same. */
  row: Pick<EngineRow, "id" | "desired">;
  move: Move;
  /** The driver's fence; verbs, which hold the row's lock instead, leave it out. */
  fencingToken?: number;
  patch?: EnginePatch;
}

/**
 * The one writer of `status`. undefined: the race was lost or the table forbids the move; nothing was written.
 * The caller writes the audit row in the same transaction.
 */
export async function moveEngine(tx: Db, input: MoveInput): Promise<EngineRow | undefined> {
  const { from, to } = MOVES[input.move];
  const condition = { id: input.row.id, statusIn: from, desired: input.row.desired };
  return updateEngineIf(
    tx,
    input.fencingToken === undefined ? condition : { ...condition, fencingToken: input.fencingToken },
    {
      statusReason: null,
      ...input.patch,
      status: to,
    },
  );
}
