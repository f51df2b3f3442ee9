export interface ExecuteRequest {
  message: unknown;
  taskId: string;
  editMessageId?: unknown;
  retryMessageId?: unknown;
  [field: string]: unknown;
}

const ENGINE_NAMES: Readonly<Record<string, string>> = {
  taskId: "task_id",
  editMessageId: "edit_message_id",
  retryMessageId: "retry_message_id",
};

/** What an engine is sent for a turn, which can be made ready while something else is waited for. */
export class ExecuteBody {
  #request: ExecuteRequest | undefined;
  #bytes: Uint8Array | undefined;

  constructor(request: ExecuteRequest) {
    this.#request = request;
  }

  /** Returns at once: it is encoded a turn of the loop later, when what was asked of others has left. */
  prepareSoon(): void {
    setImmediate(() => setImmediate(() => this.#encode()));
  }

  /** To be sent, once: a turn may live for hours, and nobody reads its request again. */
  take(): Uint8Array {
    this.#encode();
    const bytes = this.#bytes;
    if (bytes === undefined) throw new Error("the body of a turn was taken before");
    this.#bytes = undefined;
    return bytes;
  }

  #encode(): void {
    if (this.#request === undefined) return;
    // As text it would be kept, with the page that it is cut from, for as long as the stream is open.
    this.#bytes = new TextEncoder().encode(toExecuteBody(this.#request));
    this.#request = undefined;
  }
}

/** The engine's names for the fields that we know; all others and what is inside them go through as they are. */
function toExecuteBody(request: ExecuteRequest): string {
  const entries = Object.entries(request).map(([name, value]) => [
    Object.hasOwn(ENGINE_NAMES, name) ? ENGINE_NAMES[name] : name,
    value,
  ]);
  return JSON.stringify(Object.fromEntries(entries));
}
