import type { AuditAction } from "../../audit/audit-entry.ts";
import type { EngineStatus } from "./engine-status.ts";

/**
 * The lifecycle, as data. Only `moveEngine` changes the status of an engine, and each change is one of these moves. A
 * test covers every status × move cell of this table.
 *
 *  provision ─▶ provisioning ── ready ──▶ running ── fail ──▶ failed ── boot ──▶ starting
 *                    │ fail                 │ stop              │ reprovision
 *                    ▼                      ▼                   ▼
 *                  failed                stopping             provisioning
 *                                           │ finish_stop
 *                                           ▼
 *                                        stopped ── boot ──▶ starting ── ready ──▶ running
 *  destroy, from any state ─▶ destroying ─▶ (row deleted, tombstone)
 */
export const MOVES = {
  /** Begins a boot: start, restart, recovery, or a new container after a key rotation. */
  boot: { from: ["running", "sleeping", "stopping", "stopped", "failed"], to: "starting" },
  /** Provisions again after a first boot that failed. */
  reprovision: { from: ["failed"], to: "provisioning" },
  ready: { from: ["provisioning", "starting"], to: "running" },
  /** The boot failed, or health was lost. */
  fail: { from: ["provisioning", "starting", "running", "sleeping"], to: "failed" },
  stop: { from: ["provisioning", "starting", "running", "sleeping", "failed"], to: "stopping" },
  finish_stop: { from: ["stopping"], to: "stopped" },
  destroy: {
    from: ["provisioning", "starting", "running", "sleeping", "stopping", "stopped", "failed"],
    to: "destroying",
  },
} as const satisfies Record<string, { from: readonly EngineStatus[]; to: EngineStatus }>;

export type Move = keyof typeof MOVES;

/** Whether the table allows the move from that status. */
export function isAllowed(move: Move, from: EngineStatus): boolean {
  const sources: readonly EngineStatus[] = MOVES[move].from;
  return sources.includes(from);
}

/** The audit actions of moves that the reconciler makes. Operations name their own. */
export const MOVE_ACTIONS = {
  boot: "engine.boot_begun",
  reprovision: "engine.provision_requested",
  ready: "engine.started",
  fail: "engine.failed",
  stop: "engine.stop_begun",
  finish_stop: "engine.stopped",
  destroy: "engine.destroy_begun",
} as const satisfies Record<Move, AuditAction>;
