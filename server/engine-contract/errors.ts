import type { EngineErrorDetail } from "../errors.ts";
import { isDeeperThan } from "../json/json-depth.ts";
import type { Secrets } from "../secrets/secrets.ts";
import type { EngineAnswer } from "./exchange.ts";
import { parseObject } from "./parse-object.ts";

const CODE_MAX_LENGTH = 200;
const MESSAGE_MAX_LENGTH = 2_000;
const DETAILS_MAX_DEPTH = 64;
const DETAILS_MAX_LENGTH = 64 * 1024;

/** The contract's error envelope. In an event, unlike in an answer, it has no HTTP status. */
export type EngineEnvelope = Omit<EngineErrorDetail, "status">;

/** Reads the error envelope of an answer to `/execute`. Without a message in it, the message is made of status and content type. */
export function parseEngineError(answer: EngineAnswer, secrets: Secrets): EngineErrorDetail {
  const { status, contentType, text } = answer;
  const error = toEnvelope(parseObject(text), { defaultCode: `HTTP_${status}`, secrets });
  if (error.message !== "") return { status, ...error };
  const mediaType = toMediaType(secrets.hide(contentType));
  return { status, ...error, message: `the engine answered ${status} (${mediaType})${toHint(status)}` };
}

/** For the author of an engine whose answer has no envelope. */
export function toHint(status: number): string {
  if (status >= 500) return ": the last lines of the engine's log may say why";
  return status >= 300 && status < 400 ? ": redirects are not followed" : "";
}

/** Reads the envelope in the data of an `error` event or of a lifecycle event of phase `errored`. */
export function toEventError(data: unknown, secrets: Secrets): EngineEnvelope {
  const error = toEnvelope(data, { defaultCode: "UNSPECIFIED", secrets });
  return error.message === "" ? { ...error, message: "the engine sent no error message" } : error;
}

/** The media type of a content-type header, for a message. */
export function toMediaType(contentType: string): string {
  return (/^[\w.+/-]{1,60}/.exec(contentType) ?? ["no content type"])[0];
}

interface EnvelopeOptions {
  defaultCode: string;
  /** An engine may repeat the request that it got, or its environment. Our errors must not carry its secrets. */
  secrets: Secrets;
}

function toEnvelope(value: unknown, { defaultCode, secrets }: EnvelopeOptions): EngineEnvelope {
  if (typeof value !== "object" || value === null) return { code: defaultCode, message: "" };
  const { error, message, details } = value as { error?: unknown; message?: unknown; details?: unknown };
  const code =
    typeof error === "string" && error !== "" ? secrets.hideInStart(error, CODE_MAX_LENGTH) : defaultCode;
  const text = typeof message === "string" ? secrets.hideInStart(message, MESSAGE_MAX_LENGTH) : "";
  return { code, message: text, ...toDetails(details, secrets) };
}

/** The details without secrets. None if they are too large or nest too deeply. */
export function toDetails(details: unknown, secrets: Secrets): { details?: unknown } {
  if (details === undefined || details === null || isDeeperThan(details, DETAILS_MAX_DEPTH)) return {};
  return JSON.stringify(details).length > DETAILS_MAX_LENGTH ? {} : { details: secrets.hideIn(details) };
}
