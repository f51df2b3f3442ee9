import { splitObject, toJsonText } from "../json/json-text.ts";

export interface ExecuteRequest {
  message: unknown;
  taskId: string;
  editMessageId?: unknown;
  retryMessageId?: unknown;
  [field: string]: unknown;
}

/** The fields of `/execute` that have another name here: ours, and the one of the contract. */
export const ENGINE_NAMES: ReadonlyMap<string, string> = new Map([
  ["taskId", "task_id"],
  ["editMessageId", "edit_message_id"],
  ["retryMessageId", "retry_message_id"],
]);

/** The body of one `/execute` request. It can be encoded while the caller waits for something else. */
export class ExecuteBody {
  #request: ExecuteRequest | undefined;
  #bytes: Uint8Array | undefined;

  constructor(request: ExecuteRequest) {
    this.#request = request;
  }

  /** Encodes the body two event-loop iterations later, so that queries issued just before are sent first. */
  prepareSoon(): void {
    setImmediate(() => setImmediate(() => this.#encode()));
  }

  /** Returns the bytes and drops them: a turn may live for hours and needs its request only once. Throws if called twice. */
  take(): Uint8Array {
    this.#encode();
    const bytes = this.#bytes;
    if (bytes === undefined) throw new Error("the body of a turn was already taken: a turn is sent once");
    this.#bytes = undefined;
    return bytes;
  }

  #encode(): void {
    if (this.#request === undefined) return;
    // Bytes of their own: a Buffer made from a string is a slice of a shared page, which would live as long as the stream.
    this.#bytes = new TextEncoder().encode(toExecuteBody(this.#request));
    this.#request = undefined;
  }
}

/** Renames the fields that the contract names. All other fields, and all values, keep their text. */
function toExecuteBody(request: ExecuteRequest): string {
  // Of a field that comes twice, the engine gets the one that the service has read: the last one.
  const fields = new Map(splitObject(toJsonText(request)));
  const members = Array.from(
    fields,
    ([name, json]) => `${JSON.stringify(ENGINE_NAMES.get(name) ?? name)}:${json}`,
  );
  return `{${members.join(",")}}`;
}
