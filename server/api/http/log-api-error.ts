import type { Log } from "../../log.ts";
import { type ErrorPlace, toApiError } from "../trpc/api-error.ts";
import { toErrorFields } from "./error-fields.ts";

/** Logs what a caller is told too little about. Refusals are the callers' affair and go into the request's line. */
export function logApiError(log: Log, error: unknown, place: ErrorPlace & { left: boolean }): void {
  const { reason } = toApiError(error);
  const { requestId, path, left } = place;
  if (reason !== "INTERNAL" && reason !== "DATABASE_UNAVAILABLE") return;
  const fields = { requestId, path, reason, ...toErrorFields(error) };
  // Whatever is cut short because nobody listens any more fails in many ways, and none of them is news.
  if (left) log.debug(fields, "call failed after its caller had left");
  else if (reason === "INTERNAL") log.error(fields, "call failed");
  else log.warn(fields, "call failed");
}
