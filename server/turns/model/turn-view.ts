import type { TurnRow, TurnStatus } from "../../../db/turns.ts";
import { DomainError } from "../../errors.ts";
import type { TurnRegistry } from "../turn-registry.ts";
import type { TurnEnd } from "./turn-end.ts";

/** A turn as callers see it. */
export interface Turn {
  turnId: string;
  userId: string;
  engineId: string;
  taskId: string;
  status: TurnStatus;
  generation: number;
  /** The last seq that readers can get. After the turn has ended: the seq of its end. */
  lastSeq: number;
  /** How many bytes the engine has sent so far. */
  bytes: number;
  /** True: a live turn of this replica has an open question to a person. */
  waitsForPerson: boolean;
  startedAt: string;
  endedAt: string | null;
  end: TurnEnd | null;
}

/** Converts a row, whose end the caller has opened. For a live turn of this replica, status, lastSeq and bytes come from memory, which is ahead of the row. */
export function toTurn(turns: TurnRegistry, row: TurnRow, end: TurnEnd | null): Turn {
  const live = row.end === null ? turns.find(row.productId, row.turnId) : undefined;
  return {
    turnId: row.turnId,
    userId: row.userId,
    engineId: row.engineId,
    taskId: row.taskId,
    status: live && !live.isOver ? live.status : row.status,
    generation: row.generation,
    lastSeq: Math.max(row.lastSeq, live?.lastSeq ?? 0),
    bytes: Math.max(row.bytes, live?.bytes ?? 0),
    waitsForPerson: live !== undefined && !live.isOver && !live.questions.isEmpty,
    startedAt: toIso(row.startedAt),
    endedAt: row.endedAt === null ? null : toIso(row.endedAt),
    end,
  };
}

export function turnNotFound(): DomainError {
  return new DomainError("TURN_NOT_FOUND", "there is no turn of this id");
}

/** Converts an instant from Postgres text, which is in UTC. */
function toIso(text: string): string {
  return new Date(text).toISOString();
}
