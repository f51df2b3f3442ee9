import { randomUUID } from "node:crypto";
import type { ServerResponse } from "node:http";
import type { Socket } from "node:net";

interface Refusal {
  status: string;
  reason: "INVALID_INPUT" | "REQUEST_TOO_LARGE";
  message: string;
}

/**
 * Answers what is not HTTP enough to become a request, or does not become a whole one, and closes the connection.
 * `pending` are the answers that this connection still waits for.
 */
export function answerMalformedHttp(
  error: Error,
  socket: Socket,
  pending: ReadonlySet<ServerResponse> = new Set(),
): void {
  if (isOwedAnother(pending) || !socket.writable || ("code" in error && error.code === "ECONNRESET")) {
    socket.destroy();
    return;
  }
  const { status, reason, message } = toRefusal("code" in error ? error.code : undefined);
  const requestId = randomUUID();
  const body = JSON.stringify({ error: { reason, message, requestId } });
  const head = [
    `HTTP/1.1 ${status}`,
    "connection: close",
    "content-type: application/json",
    `content-length: ${Buffer.byteLength(body)}`,
    `x-request-id: ${requestId}`,
  ];
  socket.end(`${head.join("\r\n")}\r\n\r\n${body}`, () => socket.destroy());
}

/** In the middle of another answer, or before it, a status line of ours would be taken for that answer. */
function isOwedAnother(pending: ReadonlySet<ServerResponse>): boolean {
  const [response, ...more] = pending;
  if (response === undefined) return false;
  // A single request whose body did not arrive is the malformed one itself.
  return more.length > 0 || response.req.complete || response.headersSent;
}

function toRefusal(code: unknown): Refusal {
  switch (code) {
    case "HPE_HEADER_OVERFLOW":
      return {
        status: "431 Request Header Fields Too Large",
        reason: "REQUEST_TOO_LARGE",
        message: "the URL and the headers are larger than 16 KiB together",
      };
    case "HPE_CHUNK_EXTENSIONS_OVERFLOW":
      return {
        status: "413 Payload Too Large",
        reason: "REQUEST_TOO_LARGE",
        message: "the chunk extensions are too large",
      };
    case "ERR_HTTP_REQUEST_TIMEOUT":
      return {
        status: "408 Request Timeout",
        reason: "INVALID_INPUT",
        message: "the request did not arrive in time",
      };
    default:
      return { status: "400 Bad Request", reason: "INVALID_INPUT", message: "this is not HTTP" };
  }
}
