import type { Reason } from "../../errors.ts";

/** Reasons that several procedures share, for the API document. */

/** Of everything that finds one engine and uses it. */
export const HOLDING = [
  "ENGINE_NOT_FOUND",
  "ENGINE_STOPPED",
  "ENGINE_SLEEPING",
  "ENGINE_DESTROYING",
  "ENGINE_UNHEALTHY",
  "GENERATION_CHANGED",
  "DEADLINE_EXCEEDED",
] as const satisfies readonly Reason[];

/** Of a call into an engine. */
export const CALLING = [
  ...HOLDING,
  "ENGINE_BUSY",
  "ENGINE_ERROR",
  "ENGINE_TIMEOUT",
  "NOT_SUPPORTED_BY_ENGINE",
] as const satisfies readonly Reason[];

/** Of an operation, which waits until its engine is as desired. */
export const OPERATING = [
  "ENGINE_NOT_FOUND",
  "ENGINE_DESTROYING",
  "ENGINE_UNHEALTHY",
  "DEADLINE_EXCEEDED",
  "RUNTIME_UNREACHABLE",
  "RUNTIME_CHANGED",
] as const satisfies readonly Reason[];

/** Of an operation that boots the engine. */
export const BOOTING = [
  ...OPERATING,
  "ENGINE_STOPPED",
  "BOOT_FAILED",
  "BOOT_TIMEOUT",
  "IMAGE_UNAVAILABLE",
  "PORT_EXHAUSTION",
  "VOLUME_MISSING",
] as const satisfies readonly Reason[];
