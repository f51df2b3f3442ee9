import { invalidRequest } from "./engine-error.ts";
import { isJsonObject, type JsonObject } from "./json-object.ts";

const MAX_TASK_ID_LENGTH = 512;

/** The content of the `reference` field: the pace of the turn, and behaviours for demonstrations and tests. */
export interface Steering {
  /** The exact number of text deltas; undefined: the number of words in the answer. */
  readonly words: number | undefined;
  /** Pause before each delta. */
  readonly delayMs: number;
  readonly askHuman: boolean;
  readonly failWith: string | undefined;
}

export interface TurnRequest {
  readonly taskId: string;
  readonly message: string;
  /** The types of the attachments. */
  readonly media: readonly string[];
  readonly direct: boolean;
  readonly editMessageId: string | undefined;
  readonly retryMessageId: string | undefined;
  readonly steering: Steering;
}

/** Ignores unknown fields: a minor version of the contract may add optional ones. */
export function parseTurnRequest(body: JsonObject): TurnRequest {
  const message = body["message"];
  if (typeof message !== "string" || message === "")
    throw invalidRequest("message must be a non-empty string");
  const request: TurnRequest = {
    taskId: parseTaskId(body["task_id"]),
    message,
    media: parseMedia(body["media"]),
    direct: optional(body["direct"], "direct", isBoolean) ?? false,
    editMessageId: optional(body["edit_message_id"], "edit_message_id", isString),
    retryMessageId: optional(body["retry_message_id"], "retry_message_id", isString),
    steering: parseSteering(body["reference"]),
  };
  if (request.editMessageId !== undefined && request.retryMessageId !== undefined) {
    throw invalidRequest("edit_message_id and retry_message_id exclude each other");
  }
  return request;
}

export function parseTaskId(value: unknown): string {
  if (typeof value !== "string" || value === "") throw invalidRequest("task_id must be a non-empty string");
  if (value.length > MAX_TASK_ID_LENGTH) throw invalidRequest(`task_id is longer than ${MAX_TASK_ID_LENGTH}`);
  // Two ids with different lone surrogates would be one id in the brain.
  if (!value.isWellFormed()) throw invalidRequest("task_id is not well-formed Unicode");
  return value;
}

function parseMedia(value: unknown): string[] {
  const items = optional(value, "media", Array.isArray) ?? [];
  return items.map((item: unknown) => {
    const type = isJsonObject(item) ? item["type"] : undefined;
    return typeof type === "string" ? type.slice(0, 64) : "unknown";
  });
}

function parseSteering(value: unknown): Steering {
  const fields = optional(value, "reference", isJsonObject) ?? {};
  const failWith = optional(fields["failWith"], "reference.failWith", isString);
  if (failWith !== undefined && !/^[A-Z][A-Z0-9_]{0,63}$/.test(failWith)) {
    throw invalidRequest("reference.failWith must be an error code in capitals");
  }
  return {
    words: optional(fields["words"], "reference.words", isIntegerIn(1, 100_000)),
    delayMs: optional(fields["delayMs"], "reference.delayMs", isIntegerIn(0, 60_000)) ?? 0,
    askHuman: optional(fields["askHuman"], "reference.askHuman", isBoolean) ?? false,
    failWith,
  };
}

/** Treats null like an absent field. */
export function optional<T>(
  value: unknown,
  name: string,
  accepts: (value: unknown) => value is T,
): T | undefined {
  if (value === undefined || value === null) return undefined;
  if (!accepts(value)) throw invalidRequest(`${name} is not valid`);
  return value;
}

export function isString(value: unknown): value is string {
  return typeof value === "string";
}

function isBoolean(value: unknown): value is boolean {
  return typeof value === "boolean";
}

export function isIntegerIn(min: number, max: number): (value: unknown) => value is number {
  return (value): value is number => Number.isInteger(value) && Number(value) >= min && Number(value) <= max;
}
