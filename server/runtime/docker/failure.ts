import { toErrorMessage } from "../../errors.ts";
import { RuntimeFailure } from "../engine-runtime.ts";
import type { RuntimeFailureKind } from "../engine-runtime.ts";

/** The words with which daemons of different ages say that a host port cannot be bound. */
const PORT_TAKEN =
  /port is already allocated|address already in use|failed to bind (host )?port|ports are not available/i;
const NAME_TAKEN = /name .* is already in use|volume name must be unique/i;
/** What a proxy in front of the daemon answers when the daemon does not. */
const GATEWAY_STATUSES = [502, 503, 504];

/**
 * The one place that says what a failed call to the daemon means. No answer is `unreachable`, whatever the
 * reason; an answer is told apart by its status and, where the status is shared, by the daemon's words.
 */
export function toDockerFailure(error: unknown): RuntimeFailure {
  if (error instanceof RuntimeFailure) return error;
  const status = toHttpStatus(error);
  if (status === undefined || GATEWAY_STATUSES.includes(status)) {
    return new RuntimeFailure("unreachable", `no answer from the daemon: ${toErrorMessage(error)}`, error);
  }
  // The daemon's error is not kept as the cause: a logger would print it past whoever redacts the message.
  const message = toDaemonMessage(error);
  return new RuntimeFailure(toFailureKind(status, message), message);
}

/** The HTTP status that the daemon answered, undefined when it did not answer. */
export function toHttpStatus(error: unknown): number | undefined {
  if (typeof error !== "object" || error === null || !("statusCode" in error)) return undefined;
  return typeof error.statusCode === "number" ? error.statusCode : undefined;
}

/** For `.catch`: these answers are as good as success. A start of what runs is 304, not an error. */
export function unlessStatus(...statuses: readonly number[]): (error: unknown) => undefined {
  return (error) => {
    const status = toHttpStatus(error);
    if (status !== undefined && statuses.includes(status)) return undefined;
    throw error;
  };
}

/** The failure with each of these values taken out: a daemon may quote what it was given. */
export function redactFailure(failure: RuntimeFailure, secrets: readonly string[]): RuntimeFailure {
  let message = failure.message;
  for (const secret of secrets) {
    if (secret.length >= 8) message = message.replaceAll(secret, "[hidden]");
  }
  return message === failure.message ? failure : new RuntimeFailure(failure.kind, message);
}

function toFailureKind(status: number, message: string): RuntimeFailureKind {
  if (PORT_TAKEN.test(message)) return "port_taken";
  if (status === 404 && /no such container/i.test(message)) return "no_such_container";
  if (status === 404 && /no such image/i.test(message)) return "image_missing";
  if (status === 409 && NAME_TAKEN.test(message)) return "conflict";
  return "refused";
}

function toDaemonMessage(error: unknown): string {
  if (typeof error === "object" && error !== null && "json" in error) {
    const { json } = error;
    if (typeof json === "object" && json !== null && "message" in json && typeof json.message === "string") {
      return json.message;
    }
  }
  return toErrorMessage(error).trim();
}
