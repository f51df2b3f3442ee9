import type { EngineRow } from "../../../db/engines.ts";

/** Whether an engine takes calls now: the status, with what callers have asked for since. */
export type Availability = "running" | "booting" | "sleeping" | "stopped" | "unhealthy" | "destroying";

/** A boot that is not desired any more ends in `stopped`, so callers do not wait for it. */
export function toAvailability({ status, desired }: Pick<EngineRow, "status" | "desired">): Availability {
  switch (status) {
    case "running":
      return "running";
    case "provisioning":
    case "starting":
      return desired === "running" ? "booting" : "stopped";
    case "sleeping":
      return "sleeping";
    case "stopping":
    case "stopped":
      return "stopped";
    case "failed":
      return "unhealthy";
    case "destroying":
      return "destroying";
  }
}

/** How long until the service restarts a failed engine. undefined: it has given up. */
export function toRestartMs({ nextRestartAt }: Pick<EngineRow, "nextRestartAt">): number | undefined {
  return nextRestartAt === null ? undefined : Math.max(1_000, Date.parse(nextRestartAt) - Date.now());
}
