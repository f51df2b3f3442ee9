import type { FastifyReply } from "fastify";
import { WINDOW_MS, type Rate } from "../../admission/rate-limits.ts";

/**
 * Adds the headers of draft-ietf-httpapi-ratelimit-headers: the limits of the product, and what is left of them. Of a batch
 * with several calls, the headers are those of the last call that was counted: it has the least left.
 */
export function addRateHeaders(reply: FastifyReply, rates: readonly Rate[]): void {
  if (rates.length === 0) return;
  reply.header(
    "ratelimit-policy",
    toList(rates, ({ limit }) => `q=${limit};w=${WINDOW_MS / 1_000}`),
  );
  reply.header(
    "ratelimit",
    toList(rates, ({ remaining, leftMs }) => `r=${remaining};t=${toSeconds(leftMs)}`),
  );
}

function toList(rates: readonly Rate[], toParameters: (rate: Rate) => string): string {
  return rates.map((rate) => `"${rate.kind}";${toParameters(rate)}`).join(", ");
}

function toSeconds(ms: number): number {
  return Math.ceil(ms / 1_000);
}
