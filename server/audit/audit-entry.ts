import type { Actor } from "../actor.ts";

export const SYSTEM_ACTOR: Actor = { kind: "system", id: "system", name: "reconciler" };

export const AUDIT_ACTIONS = [
  "product.registered",
  "product.policy_updated",
  "product.removed",
  "platform_key.issued",
  "platform_key.revoked",
  "operator.issued",
  "operator.revoked",
  "master_key.resealed",
  "rows.adopted",
  "row.tampering_found",
  "engine.provision_requested",
  "engine.provisioned",
  "engine.start_requested",
  "engine.boot_begun",
  "engine.started",
  "engine.stop_requested",
  "engine.stop_begun",
  "engine.stopped",
  "engine.restart_requested",
  "engine.process_changed",
  "engine.failed",
  "engine.destroy_requested",
  "engine.destroy_begun",
  "engine.destroyed",
  "engine_key.rotate_requested",
  "engine_key.rotated",
  "engine_key.revealed",
  "runtime.accept_requested",
  "runtime.accepted",
  "rpc.config_set",
  "rpc.reloaded",
  "admission.denied",
] as const;
export type AuditAction = (typeof AUDIT_ACTIONS)[number];

export interface AuditEntry {
  /** The chain: a product's id, or `platform` for what operators do to the installation. */
  scope: string;
  actor: Actor;
  action: AuditAction;
  userId?: string | null;
  engineId?: string | null;
  requestId?: string | null;
  /** JSON values only. No secrets: callers can read them. */
  metadata?: Readonly<Record<string, unknown>>;
  durationMs?: number | null;
}
