import type { ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { type RawRefusal, sendRawRefusal } from "./raw-refusal.ts";

/**
 * Answers bytes that are no valid HTTP request, or a request that stays incomplete, and closes the connection.
 * `pending` are the responses that this connection still waits for.
 */
export function answerMalformedHttp(
  error: Error,
  socket: Socket,
  pending: ReadonlySet<ServerResponse> = new Set(),
): void {
  if (awaitsOtherResponse(pending) || !socket.writable || ("code" in error && error.code === "ECONNRESET")) {
    socket.destroy();
    return;
  }
  sendRawRefusal(socket, toRefusal("code" in error ? error.code : undefined));
}

/** True if the client waits for another response: it would take our status line for a part of that response. */
function awaitsOtherResponse(pending: ReadonlySet<ServerResponse>): boolean {
  const [response, ...more] = pending;
  if (response === undefined) return false;
  // A single incomplete request without a response is the malformed request itself.
  return more.length > 0 || response.req.complete || response.headersSent;
}

function toRefusal(code: unknown): RawRefusal {
  switch (code) {
    case "HPE_HEADER_OVERFLOW":
      return {
        status: 431,
        reason: "REQUEST_TOO_LARGE",
        message: "URL and headers together are larger than 16 KiB",
      };
    case "HPE_CHUNK_EXTENSIONS_OVERFLOW":
      return {
        status: 413,
        reason: "REQUEST_TOO_LARGE",
        message: "the chunk extensions are too large",
      };
    case "ERR_HTTP_REQUEST_TIMEOUT":
      return {
        status: 408,
        reason: "INVALID_INPUT",
        message: "the request did not arrive in time: send headers and body faster",
      };
    default:
      return {
        status: 400,
        reason: "INVALID_INPUT",
        message: "the bytes are not a valid HTTP request",
      };
  }
}
