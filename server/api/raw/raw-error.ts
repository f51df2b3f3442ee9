import { TRPCError } from "@trpc/server";
import { z } from "zod";
import { ENGINE_NAMES } from "../../engine-contract/execute-body.ts";

/** Names the fields of a refused input as the callers of raw routes write them. Other errors stay as they are. */
export function toRawError(error: unknown): unknown {
  if (!(error instanceof TRPCError && error.cause instanceof z.ZodError)) return error;
  const issues = error.cause.issues.map((issue) => ({ ...issue, path: toRawPath(issue.path) }));
  return new TRPCError({ code: error.code, cause: new z.ZodRealError(issues) });
}

function toRawPath([first, ...rest]: readonly PropertyKey[]): PropertyKey[] {
  if (first === "lastEventId") return ["Last-Event-ID"];
  if (first === "idempotencyKey") return ["Idempotency-Key"];
  if (first === "requestId") return ["request_id"];
  if (first === "contentBlocks") return ["content_blocks", ...rest];
  if (first !== "request") return first === undefined ? [] : [first, ...rest];
  const [field, ...deeper] = rest;
  if (field === undefined) return [];
  return [ENGINE_NAMES.get(String(field)) ?? field, ...deeper];
}
