import type { AuditAction } from "../../audit/audit-entry.ts";
import type { EngineStatus } from "./engine-status.ts";

/**
 * The lifecycle, as data. Only `moveEngine` changes the status of an engine, and each change is one of these moves. A
 * test covers every status × move cell of this table. `action` is the audit action of a move that the reconciler makes;
 * operations name their own.
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
  boot: {
    from: ["running", "sleeping", "stopping", "stopped", "failed"],
    to: "starting",
    action: "engine.boot_begun",
  },
  /** Provisions again after a first boot that failed. */
  reprovision: { from: ["failed"], to: "provisioning", action: "engine.provision_requested" },
  ready: { from: ["provisioning", "starting"], to: "running", action: "engine.started" },
  /** The boot failed, or health was lost. */
  fail: { from: ["provisioning", "starting", "running", "sleeping"], to: "failed", action: "engine.failed" },
  stop: {
    from: ["provisioning", "starting", "running", "sleeping", "failed"],
    to: "stopping",
    action: "engine.stop_begun",
  },
  finish_stop: { from: ["stopping"], to: "stopped", action: "engine.stopped" },
  destroy: {
    from: ["provisioning", "starting", "running", "sleeping", "stopping", "stopped", "failed"],
    to: "destroying",
    action: "engine.destroy_begun",
  },
} as const satisfies Record<string, { from: readonly EngineStatus[]; to: EngineStatus; action: AuditAction }>;

export type Move = keyof typeof MOVES;

/** Whether the table allows the move from that status. */
export function isAllowed(move: Move, from: EngineStatus): boolean {
  const sources: readonly EngineStatus[] = MOVES[move].from;
  return sources.includes(from);
}
