import type { EngineErrorDetail } from "../errors.ts";
import { isDeeperThan } from "../json-depth.ts";
import type { TurnEnd } from "../turns/model/turn-end.ts";

const CODE_MAX_LENGTH = 200;
const MESSAGE_MAX_LENGTH = 2_000;
const DETAILS_MAX_DEPTH = 64;
const DETAILS_MAX_LENGTH = 64 * 1024;

/** The contract's error envelope, or what can be said of an answer without one. The key never comes along. */
export function parseEngineError(
  answer: { status: number; contentType: string; text: string },
  apiKey: string,
): EngineErrorDetail {
  const { status } = answer;
  const error = toEnvelope(parseJson(answer.text.replaceAll(apiKey, "[hidden]")), `HTTP_${status}`);
  if (error.message !== "") return { status, ...error };
  const kind = (/^[\w.+/-]{1,60}/.exec(answer.contentType) ?? ["no content type"])[0];
  return { status, ...error, message: `the engine answered ${status} (${kind})` };
}

/** The error in the data of an `error` or `errored` event. */
export function toEventError(data: unknown): NonNullable<TurnEnd["engineError"]> {
  const error = toEnvelope(data, "UNSPECIFIED");
  return error.message === "" ? { ...error, message: "the engine did not say what went wrong" } : error;
}

function toEnvelope(value: unknown, otherwise: string): NonNullable<TurnEnd["engineError"]> {
  if (typeof value !== "object" || value === null) return { code: otherwise, message: "" };
  const { error, message, details } = value as { error?: unknown; message?: unknown; details?: unknown };
  const code = typeof error === "string" && error !== "" ? error.slice(0, CODE_MAX_LENGTH) : otherwise;
  const text = typeof message === "string" ? message.slice(0, MESSAGE_MAX_LENGTH) : "";
  return { code, message: text, ...toDetails(details) };
}

function toDetails(details: unknown): { details?: unknown } {
  if (details === undefined || details === null || isDeeperThan(details, DETAILS_MAX_DEPTH)) return {};
  return JSON.stringify(details).length > DETAILS_MAX_LENGTH ? {} : { details };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // HTML, half of something, nothing: the status has to do.
    return undefined;
  }
}
