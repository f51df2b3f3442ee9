import { randomUUID } from "node:crypto";
import type { Socket } from "node:net";

interface Refusal {
  status: string;
  reason: "INVALID_INPUT" | "REQUEST_TOO_LARGE";
  message: string;
}

/** Answers what is not HTTP enough to become a request, and closes the connection. */
export function answerMalformedHttp(error: Error, socket: Socket, isAnswering: boolean): void {
  // In the middle of another answer, a second status line would become part of that answer's body.
  if (isAnswering || !socket.writable || ("code" in error && error.code === "ECONNRESET")) {
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
