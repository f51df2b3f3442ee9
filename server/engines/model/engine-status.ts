import { DESIRED_STATES, ENGINE_STATUSES } from "../../../db/schema.ts";

export { DESIRED_STATES, ENGINE_STATUSES };
export type EngineStatus = (typeof ENGINE_STATUSES)[number];
export type Desired = (typeof DESIRED_STATES)[number];

/** The codes of `statusReason`, which is `CODE: text`. */
export const STATUS_REASONS = [
  "boot_timeout",
  "boot_exited",
  "image_unavailable",
  "health_failed",
  "restarts_spent",
  "volume_missing",
  "runtime_changed",
  "runtime_refused",
  "ports_exhausted",
  "row_tampered",
  "stopped_by_caller",
  "idle",
] as const;
export type StatusReason = (typeof STATUS_REASONS)[number];

const REASON_TEXT_LENGTH = 2_000;

/** Cuts the text, and replaces characters that Postgres refuses or that control a terminal. */
export function toStatusReason(code: StatusReason, text: string): string {
  // eslint-disable-next-line no-control-regex -- the expression removes control characters
  const printable = text.toWellFormed().replaceAll(/[\u0000-\u0009\u000b-\u001f\u007f]/g, " ");
  return `${code}: ${printable}`.slice(0, REASON_TEXT_LENGTH).toWellFormed();
}

export const STOPPED_BY_CALLER = toStatusReason("stopped_by_caller", "engines.stop");

/** The code in front of a status reason; undefined for null or an unknown one. */
export function findStatusReasonCode(statusReason: string | null): StatusReason | undefined {
  const code = statusReason?.split(":", 1)[0];
  return STATUS_REASONS.find((known) => known === code);
}
