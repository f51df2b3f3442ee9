import type { ErrorShape } from "./enginehouse-error.ts";

/** A reply of a replica: tRPC's envelope. */
export type Reply = { result: unknown } | { error: ErrorShape };

/** undefined: the text does not come from a replica. */
export function parseReply(text: string, httpStatus: number): Reply | undefined {
  const reply = parseObject(text);
  if (reply === undefined) return undefined;
  if (httpStatus < 300 && reply["result"] !== undefined) return { result: reply["result"] };
  const error = reply["error"] as
    (Partial<ErrorShape> & { reason?: unknown; requestId?: string }) | undefined;
  if (typeof error?.data?.reason === "string") return { error: error as ErrorShape };
  // A request that reaches no procedure gets an error without tRPC's envelope.
  const { reason, message = "", requestId = null, ...rest } = error ?? {};
  if (typeof reason !== "string") return undefined;
  const data = { ...rest, reason, requestId, httpStatus, code: "BAD_REQUEST", path: null };
  return { error: toErrorShape(message, data as ErrorShape["data"]) };
}

/** tRPC takes an error only with a number of JSON-RPC. This one says that the request is wrong, which is final. */
export function toErrorShape(message: string, data: ErrorShape["data"]): ErrorShape & { code: number } {
  return { message, code: -32_600, data };
}

function parseObject(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
