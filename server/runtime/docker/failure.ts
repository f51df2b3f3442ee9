import { toErrorMessage } from "../../errors.ts";
import { RuntimeFailure, type RuntimeFailureKind } from "../engine-runtime.ts";

/** What daemons of different versions answer if they cannot bind a host port. */
const PORT_TAKEN =
  /port is already allocated|address already in use|failed to bind (host )?port|ports are not available/i;
const NAME_TAKEN = /name .* is already in use|volume name must be unique/i;
/** A proxy answers these statuses if the daemon behind it does not answer. */
const GATEWAY_STATUSES = [502, 503, 504];

/**
 * Maps every error of a call to the daemon to a RuntimeFailure. Without an answer it is `unreachable`. An answer is
 * mapped by its status, and by the daemon's message if several failures share the status.
 */
export function toDockerFailure(error: unknown): RuntimeFailure {
  if (error instanceof RuntimeFailure) return error;
  const status = toHttpStatus(error);
  if (status === undefined || GATEWAY_STATUSES.includes(status)) {
    const message = `the Docker daemon did not answer: ${toErrorMessage(error)}`;
    return new RuntimeFailure("unreachable", message, error);
  }
  // The daemon's error does not become the cause: a logger would print it, with secrets that `redactFailure` hides.
  const message = toDaemonMessage(error);
  return new RuntimeFailure(toFailureKind(status, message), message);
}

/** The HTTP status of the daemon's answer. undefined: the daemon did not answer. */
export function toHttpStatus(error: unknown): number | undefined {
  if (typeof error !== "object" || error === null || !("statusCode" in error)) return undefined;
  return typeof error.statusCode === "number" ? error.statusCode : undefined;
}

/** For `.catch`: treats these statuses as success. For example, starting a running container answers 304. */
export function unlessStatus(...statuses: readonly number[]): (error: unknown) => undefined {
  return (error) => {
    const status = toHttpStatus(error);
    if (status !== undefined && statuses.includes(status)) return undefined;
    throw error;
  };
}

/** Hides these values in the message, because a daemon may quote its input. */
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

/** The error has an HTTP status, so it is an object. */
function toDaemonMessage(error: unknown): string {
  const { json } = error as { json?: { message?: unknown } | null };
  return typeof json?.message === "string" ? json.message : toErrorMessage(error).trim();
}
