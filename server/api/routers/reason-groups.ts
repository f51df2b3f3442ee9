import type { Reason } from "../../errors.ts";

/** The reasons that several procedures share, for the API document. */

/** The refusals of all procedures that find one engine and use it. */
export const HOLDING = [
  "ENGINE_NOT_FOUND",
  "ENGINE_STOPPED",
  "ENGINE_SLEEPING",
  "ENGINE_DESTROYING",
  "ENGINE_UNHEALTHY",
  "GENERATION_CHANGED",
  "DEADLINE_EXCEEDED",
] as const satisfies readonly Reason[];

/** The refusals of a call into an engine. */
export const CALLING = [
  ...HOLDING,
  "ENGINE_BUSY",
  "ENGINE_ERROR",
  "ENGINE_TIMEOUT",
  "NOT_SUPPORTED_BY_ENGINE",
] as const satisfies readonly Reason[];

/** The refusals of an operation, which waits until its engine is as desired. */
export const OPERATING = [
  "ENGINE_NOT_FOUND",
  "ENGINE_DESTROYING",
  "ENGINE_UNHEALTHY",
  "DEADLINE_EXCEEDED",
  "RUNTIME_UNREACHABLE",
  "RUNTIME_CHANGED",
] as const satisfies readonly Reason[];

/** The refusals of an operation that boots the engine. */
export const BOOTING = [
  ...OPERATING,
  "ENGINE_STOPPED",
  "BOOT_FAILED",
  "BOOT_TIMEOUT",
  "IMAGE_UNAVAILABLE",
  "PORT_EXHAUSTION",
  "VOLUME_MISSING",
] as const satisfies readonly Reason[];
