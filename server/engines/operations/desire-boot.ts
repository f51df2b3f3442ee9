import type { EnginePatch, EngineRow } from "../../../db/engines.ts";
import { orchNow } from "../../../db/orch-now.ts";
import { DomainError } from "../../errors.ts";
import { BOOT_PATCH } from "../reconcile/record-move.ts";
import type { DesiredStateChange } from "./record-desired-state.ts";

/** A boot that a caller asked for. It has a fresh restart budget. Throws what `refuseFailedFirstBoot` throws. */
export function desireBoot(row: EngineRow, patch?: EnginePatch): DesiredStateChange {
  refuseFailedFirstBoot(row);
  const desired = {
    desired: "running",
    desiredBy: "caller",
    restartAttempts: 0,
    nextCheckAt: orchNow,
  } as const;
  return { patch: { ...BOOT_PATCH, ...desired, ...patch }, move: "boot" };
}

/** Throws ENGINE_UNHEALTHY if the engine's first boot has failed: only another provision helps. */
export function refuseFailedFirstBoot(row: EngineRow): void {
  if (row.status !== "failed" || row.firstReadyAt !== null) return;
  throw new DomainError(
    "ENGINE_UNHEALTHY",
    `the first boot of this engine has failed (${row.statusReason}): provision it again`,
  );
}
