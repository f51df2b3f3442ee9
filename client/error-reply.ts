import type { ErrorData } from "./reason.ts";

type RefusalData = Pick<ErrorData, "reason" | "retryAfterMs">;

/** `error.data` of a replica's error reply. undefined: the text does not come from a replica. */
export function findRefusalData(text: string): RefusalData | undefined {
  try {
    const reply = JSON.parse(text) as { error?: { data?: Partial<RefusalData> } } | null;
    const data = reply?.error?.data;
    return typeof data?.reason === "string" ? (data as RefusalData) : undefined;
  } catch {
    return undefined;
  }
}

const GATEWAY_STATUSES: readonly number[] = [502, 503, 504];

/** Whether a gateway gave this answer. A replica sends the same statuses, but with JSON that has a reason. */
export function isGatewayAnswer(status: number, text: string): boolean {
  return GATEWAY_STATUSES.includes(status) && findRefusalData(text) === undefined;
}
