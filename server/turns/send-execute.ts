import type { Readable } from "node:stream";
import { Client } from "undici";
import type { EngineUse } from "../engines/use-engine.ts";
import { toErrorMessage, type EngineErrorDetail } from "../errors.ts";
import { parseEngineError } from "./engine-error.ts";

export interface ExecuteRequest {
  message: unknown;
  taskId: string;
  editMessageId?: unknown;
  retryMessageId?: unknown;
  [field: string]: unknown;
}

export type ExecuteAnswer =
  /** `close` ends the connection, and has to be called. */
  | { kind: "streaming"; body: Readable; close(): void }
  | { kind: "refused"; error: EngineErrorDetail }
  /** 200, but no event stream: what it is doing is anybody's guess. */
  | { kind: "not_a_stream"; error: EngineErrorDetail }
  /** There was no connection, so the engine has not seen the request. */
  | { kind: "unreachable"; why: string }
  /** The request went out and no answer came back. */
  | { kind: "lost"; why: string };

const ENGINE_NAMES: Readonly<Record<string, string>> = {
  taskId: "task_id",
  editMessageId: "edit_message_id",
  retryMessageId: "retry_message_id",
};
const CONNECT_TIMEOUT_MS = 10_000;
const ERROR_BODY_MAX_BYTES = 64 * 1024;
const ERROR_BODY_TIMEOUT_MS = 5_000;

/**
 * Sends `/execute` once, on a connection of its own: a kept-alive one may be closing as it is used, and then nobody
 * knows whether the engine has the request. Never throws.
 *
 * The signal is the only clock here: undici's would also run between the chunks of a quiet stream.
 */
export async function sendExecute(
  engine: Pick<EngineUse, "endpoint" | "apiKey">,
  request: ExecuteRequest,
  signal: AbortSignal,
): Promise<ExecuteAnswer> {
  const client = new Client(engine.endpoint, {
    pipelining: 0,
    headersTimeout: 0,
    bodyTimeout: 0,
    connect: { timeout: CONNECT_TIMEOUT_MS },
  });
  const close = () => {
    client.destroy().catch(() => {
      // It is being thrown away; how it goes down does not matter.
    });
  };
  let isConnected = false;
  client.once("connect", () => {
    isConnected = true;
  });
  try {
    const { statusCode, headers, body } = await client.request({
      method: "POST",
      path: "/execute",
      headers: {
        "content-type": "application/json",
        accept: "text/event-stream",
        "x-engine-key": engine.apiKey,
      },
      body: toExecuteBody(request),
      signal,
    });
    const contentType = String(headers["content-type"] ?? "");
    if (statusCode === 200 && /^text\/event-stream\s*(;|$)/i.test(contentType)) {
      return { kind: "streaming", body, close };
    }
    const text = await readHead(body);
    close();
    const error = parseEngineError({ status: statusCode, contentType, text }, engine.apiKey);
    return { kind: statusCode === 200 ? "not_a_stream" : "refused", error };
  } catch (error) {
    close();
    return { kind: isConnected ? "lost" : "unreachable", why: explain(error) };
  }
}

/** The engine's names for the fields that we know; all others and what is inside them go through as they are. */
export function toExecuteBody(request: ExecuteRequest): string {
  const entries = Object.entries(request).map(([name, value]) => [
    Object.hasOwn(ENGINE_NAMES, name) ? ENGINE_NAMES[name] : name,
    value,
  ]);
  return JSON.stringify(Object.fromEntries(entries));
}

/** As much of an error's body as is of use, and no longer than it is worth waiting for. */
async function readHead(body: Readable): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  const timer = setTimeout(() => body.destroy(), ERROR_BODY_TIMEOUT_MS);
  try {
    for await (const chunk of body) {
      chunks.push(chunk as Buffer);
      size += (chunk as Buffer).length;
      if (size > ERROR_BODY_MAX_BYTES) break;
    }
  } catch {
    // Cut short: its beginning, and the status, have to do.
  } finally {
    clearTimeout(timer);
  }
  return Buffer.concat(chunks).subarray(0, ERROR_BODY_MAX_BYTES).toString("utf8");
}

function explain(error: unknown): string {
  // A host name with several addresses fails with an aggregate, whose own message is empty.
  if (error instanceof AggregateError && error.message === "") return error.errors.map(explain).join("; ");
  return toErrorMessage(error);
}
