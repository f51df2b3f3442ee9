import type { TRPCError } from "@trpc/server";

export const MAX_BATCH_SIZE = 10;

/** Names the limit when tRPC refuses a batch, because tRPC's own message does not. undefined: another error. */
export function toBatchMessage({ message }: TRPCError): string | undefined {
  if (message !== "Batch call exceeds maximum size") return undefined;
  return `a batch has at most ${MAX_BATCH_SIZE} calls: send more batches (maxItems: ${MAX_BATCH_SIZE} in tRPC's httpBatchLink)`;
}
