import type { Readable } from "node:stream";
import { DecoratorHandler, type Dispatcher } from "undici";
import { engineConnections, isKept } from "../engines/engine-connections.ts";
import { explain } from "../engines/engine-http.ts";
import type { EngineUse } from "../engines/use-engine.ts";
import type { EngineErrorDetail } from "../errors.ts";
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
const ERROR_BODY_MAX_BYTES = 64 * 1024;
const ERROR_BODY_TIMEOUT_MS = 5_000;

/**
 * Sends `/execute` once: see `engineConnections`. Never throws.
 */
export async function sendExecute(
  engine: Pick<EngineUse, "endpoint" | "apiKey">,
  request: ExecuteRequest,
  signal: AbortSignal,
): Promise<ExecuteAnswer> {
  let isSent = false;
  const dispatcher = engineConnections.compose(
    tellSent(() => {
      isSent = true;
    }),
  );
  try {
    const { statusCode, headers, body } = await dispatcher.request({
      origin: engine.endpoint,
      reset: !isKept(engine.endpoint),
      method: "POST",
      path: "/execute",
      headers: {
        "content-type": "application/json",
        accept: "text/event-stream",
        "x-engine-key": engine.apiKey,
      },
      // As text it would be kept, with the page that it is cut from, for as long as the stream is open.
      body: new TextEncoder().encode(toExecuteBody(request)),
      signal,
    });
    // A body that is thrown away reports that as an error, to nobody in particular.
    body.on("error", () => undefined);
    const close = () => {
      body.destroy();
    };
    const contentType = String(headers["content-type"] ?? "");
    if (statusCode === 200 && /^text\/event-stream\s*(;|$)/i.test(contentType)) {
      return { kind: "streaming", body, close };
    }
    const text = await readHead(body);
    close();
    const error = parseEngineError({ status: statusCode, contentType, text }, engine.apiKey);
    return { kind: statusCode === 200 ? "not_a_stream" : "refused", error };
  } catch (error) {
    return { kind: isSent ? "lost" : "unreachable", why: explain(error) };
  }
}

/** Calls back when a request goes out on its connection. */
function tellSent(onSent: () => void): Dispatcher.DispatcherComposeInterceptor {
  return (dispatch) => (options, handler) => dispatch(options, new SentHandler(handler, onSent));
}

class SentHandler extends DecoratorHandler {
  readonly #handler: Dispatcher.DispatchHandler;
  readonly #onSent: () => void;

  constructor(handler: Dispatcher.DispatchHandler, onSent: () => void) {
    super(handler);
    this.#handler = handler;
    this.#onSent = onSent;
  }

  onRequestStart(controller: Dispatcher.DispatchController, context: unknown): void {
    this.#onSent();
    this.#handler.onRequestStart?.(controller, context);
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
