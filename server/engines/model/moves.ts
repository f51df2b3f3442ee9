import type { AuditAction } from "../../audit/audit-entry.ts";
import type { EngineStatus } from "./engine-status.ts";

/**
 * The lifecycle, as data. Every change of an engine's status is one of these moves, made by `moveEngine` and
 * nothing else; the test walks every status × move cell of the same table.
 *
 *  provision ─▶ provisioning ── ready ──▶ running ── lose ──▶ failed ── boot ──▶ starting
 *                    │ fail                 │ stop              │ reprovision
 *                    ▼                      ▼                   ▼
 *                  failed                stopping ─ settle ─▶ stopped ── boot ──▶ starting ── ready ─▶ running
 *  destroy, from any state ─▶ destroying ─▶ (row gone, tombstone)
 */
export const MOVES = {
  /** Begin a boot: start, restart, recovery, and a replacement after a key rotation. */
  boot: { from: ["running", "sleeping", "stopping", "stopped", "failed"], to: "starting" },
  /** Provision again after a first boot that failed. */
  reprovision: { from: ["failed"], to: "provisioning" },
  ready: { from: ["provisioning", "starting"], to: "running" },
  /** A boot that failed, or health that was lost. */
  fail: { from: ["provisioning", "starting", "running", "sleeping"], to: "failed" },
  stop: { from: ["provisioning", "starting", "running", "sleeping", "failed"], to: "stopping" },
  settle: { from: ["stopping"], to: "stopped" },
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

/** What the audit trail calls a move that the control loop makes; verbs name their own. */
export const MOVE_ACTIONS = {
  boot: "engine.boot_begun",
  reprovision: "engine.provision_requested",
  ready: "engine.started",
  fail: "engine.failed",
  stop: "engine.stop_begun",
  settle: "engine.stopped",
  destroy: "engine.destroy_begun",
} as const satisfies Record<Move, AuditAction>;
