import type { EngineRow } from "../../../db/engines.ts";
import type { IdempotencyRecord } from "../../idempotency/idempotency-record.ts";
import { DomainError } from "../../errors.ts";
import { engineDestroying } from "../model/absent-engine-errors.ts";
import { findStatusReasonCode } from "../model/engine-status.ts";

/**
 * Throws if an operation that desired a running engine has another result: the boot failed, or a later operation
 * desired another state.
 */
export async function requireRunning(row: EngineRow, idempotency: IdempotencyRecord): Promise<void> {
  if (row.status === "failed") await failBoot(row, idempotency);
  if (row.desired === "stopped") {
    throw new DomainError("ENGINE_STOPPED", "a later call has stopped the engine: start it");
  }
  if (row.desired === "destroyed") throw engineDestroying();
}

/** Throws what callers get for a failed boot. A retry with the same idempotency key starts a new boot. */
export async function failBoot(row: EngineRow, idempotency: IdempotencyRecord): Promise<never> {
  await idempotency.forgetSubject();
  throw toBootError(row);
}

/** The status reason is the message, because it has the exit code and the last log lines. */
function toBootError(row: EngineRow): DomainError {
  const message = row.statusReason ?? "the engine did not boot";
  switch (findStatusReasonCode(row.statusReason)) {
    case "image_unavailable":
      return new DomainError("IMAGE_UNAVAILABLE", message);
    case "boot_timeout":
      return new DomainError("BOOT_TIMEOUT", message);
    case "volume_missing":
      return new DomainError("VOLUME_MISSING", message);
    case "row_tampered":
      return new DomainError("ROW_TAMPERED", message);
    case "ports_exhausted":
      return new DomainError("PORT_EXHAUSTION", message);
    default:
      return new DomainError("BOOT_FAILED", message);
  }
}
