import type { TurnRow, TurnStatus } from "../../../db/turns.ts";
import { DomainError } from "../../errors.ts";
import { parseEnd, type TurnEnd } from "./turn-end.ts";
import type { TurnRegistry } from "../turn-registry.ts";

/** A turn as callers see it. */
export interface Turn {
  turnId: string;
  userId: string;
  engineId: string;
  taskId: string;
  status: TurnStatus;
  generation: number;
  /** Of the last item that can be read; of the end once there is one. */
  lastSeq: number;
  /** Received from the engine. */
  bytes: number;
  startedAt: string;
  endedAt: string | null;
  end: TurnEnd | null;
}

/** Of a turn that this process owns, what readers have seen already is part of the picture, written or not. */
export function toTurn(registry: TurnRegistry, row: TurnRow): Turn {
  const live = row.end === null ? registry.find(row.productId, row.turnId) : undefined;
  return {
    turnId: row.turnId,
    userId: row.userId,
    engineId: row.engineId,
    taskId: row.taskId,
    status: live && !live.isSettled ? live.status : row.status,
    generation: row.generation,
    lastSeq: Math.max(row.lastSeq, live?.lastSeq ?? 0),
    bytes: Math.max(row.bytes, live?.bytes ?? 0),
    startedAt: toIso(row.startedAt),
    endedAt: row.endedAt === null ? null : toIso(row.endedAt),
    end: row.end === null ? null : parseEnd(row.end),
  };
}

export function turnNotFound(): DomainError {
  return new DomainError("TURN_NOT_FOUND", "there is no turn of this id");
}

/** From Postgres' text, whose zone is UTC. */
function toIso(text: string): string {
  return new Date(text).toISOString();
}
