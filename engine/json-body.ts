import type { IncomingMessage, ServerResponse } from "node:http";
import { EngineError, invalidRequest } from "./engine-error.ts";
import { isJsonObject, type JsonObject } from "./json-object.ts";

const MAX_BODY_BYTES = 16 * 1024 * 1024;
const MAX_DISCARDED_BYTES = 4 * MAX_BODY_BYTES;

export async function readJsonBody(req: IncomingMessage): Promise<JsonObject> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  // Leaving a plain `for await` early would close the connection before the refusal is sent.
  const body = req.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>;
  for await (const chunk of body) {
    bytes += chunk.length;
    if (bytes > MAX_BODY_BYTES) {
      throw new EngineError(413, "REQUEST_TOO_LARGE", `the body is larger than ${MAX_BODY_BYTES} bytes`);
    }
    chunks.push(chunk);
  }
  return parseBody(Buffer.concat(chunks));
}

/**
 * Reads the rest of a body: if the connection closed while the client still sends, the client would lose our answer.
 * Returns false when the client has left or sends too much.
 */
export async function discardBody(req: IncomingMessage): Promise<boolean> {
  let bytes = 0;
  try {
    for await (const chunk of req as AsyncIterable<Buffer>) {
      bytes += chunk.length;
      if (bytes > MAX_DISCARDED_BYTES) return false;
    }
    return req.complete;
  } catch {
    // The client closed the connection, so no answer can reach it.
    return false;
  }
}

export function sendJson(res: ServerResponse, status: number, body: unknown): void {
  if (res.destroyed || res.headersSent) return;
  const text = JSON.stringify(body);
  res.writeHead(status, { "content-type": "application/json", "content-length": Buffer.byteLength(text) });
  res.end(text);
}

function parseBody(body: Buffer): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body));
  } catch {
    throw invalidRequest("the body is not JSON");
  }
  if (!isJsonObject(value)) throw invalidRequest("the body is not a JSON object");
  return value;
}
