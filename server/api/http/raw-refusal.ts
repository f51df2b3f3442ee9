import { randomUUID } from "node:crypto";
import { STATUS_CODES } from "node:http";
import type { Socket } from "node:net";
import type { Reason } from "../../errors.ts";

/** A refusal without a request that fastify could answer. */
export interface RawRefusal {
  /** The HTTP status code. */
  status: number;
  reason: Reason;
  message: string;
  retryAfterMs?: number;
}

/** Writes the refusal to a connection and closes it. */
export function sendRawRefusal(socket: Socket, { status, reason, message, retryAfterMs }: RawRefusal): void {
  const requestId = randomUUID();
  const body = JSON.stringify({ error: { reason, message, requestId, retryAfterMs } });
  const head = [
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}`,
    "connection: close",
    "content-type: application/json",
    `content-length: ${Buffer.byteLength(body)}`,
    `x-request-id: ${requestId}`,
    ...(retryAfterMs === undefined ? [] : [`retry-after: ${toRetryAfter(retryAfterMs)}`]),
  ];
  socket.end(`${head.join("\r\n")}\r\n\r\n${body}`, () => socket.destroy());
}

/** The header counts in whole seconds. */
export function toRetryAfter(retryAfterMs: number): string {
  return String(Math.ceil(retryAfterMs / 1_000));
}
