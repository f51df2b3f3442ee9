import { toErrorMessage } from "../../errors.ts";
import { Secrets } from "../../secrets/secrets.ts";
import { RuntimeFailure, type RuntimeFailureKind } from "../engine-runtime.ts";

/**
 * What daemons of different versions say, and what it means. The first row whose status and text match decides; an
 * answer without a row is `refused`. A row without a status holds for each status.
 */
const ANSWERS: readonly { status?: number; text: RegExp; kind: RuntimeFailureKind }[] = [
  {
    text: /port is already allocated|address already in use|failed to bind (host )?port|ports are not available/i,
    kind: "port_taken",
  },
  // The daemon answers, but lost its own daemon for containers. So the outcome of the call is unknown.
  { text: /containerd\.sock|transport is closing|ttrpc: closed/i, kind: "unreachable" },
  { status: 404, text: /no such container/i, kind: "no_such_container" },
  { status: 404, text: /no such image/i, kind: "image_missing" },
  // A container keeps the id of its network. If that network was removed, also one of the same name does not help.
  { text: /network \S+ not found/i, kind: "unfit" },
  // A daemon that crashed can leave the container's old endpoint behind. Another container has another endpoint.
  { status: 403, text: /endpoint with name \S+ already exists/i, kind: "unfit" },
  { status: 409, text: /name .* is already in use|volume name must be unique/i, kind: "conflict" },
];
/** A proxy answers these statuses if the daemon behind it does not answer. */
const GATEWAY_STATUSES = [502, 503, 504];

/**
 * Maps every error of a call to the daemon to a RuntimeFailure. Without an answer it is `unreachable`. An answer is
 * mapped by its status, and by the daemon's message if several failures share the status.
 */
export function toDockerFailure(error: unknown): RuntimeFailure {
  if (error instanceof RuntimeFailure) return error;
  const status = toHttpStatus(error);
  // The daemon itself may answer such a status too, and then its message is in the body.
  const isFromProxy =
    status !== undefined && GATEWAY_STATUSES.includes(status) && findDaemonMessage(error) === undefined;
  if (status === undefined || isFromProxy) {
    const message = `the Docker daemon did not answer: ${toErrorMessage(error)}`;
    return new RuntimeFailure("unreachable", message, error);
  }
  // The daemon's error does not become the cause: a logger would print it, with secrets that `redactFailure` hides.
  const message = findDaemonMessage(error) ?? toErrorMessage(error).trim();
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
  const message = new Secrets(secrets).hide(failure.message);
  return message === failure.message ? failure : new RuntimeFailure(failure.kind, message);
}

function toFailureKind(status: number, message: string): RuntimeFailureKind {
  const answer = ANSWERS.find((row) => (row.status ?? status) === status && row.text.test(message));
  return answer?.kind ?? "refused";
}

/** The error has an HTTP status, so it is an object. undefined: its body is not the JSON of a daemon. */
function findDaemonMessage(error: unknown): string | undefined {
  const { json } = error as { json?: { message?: unknown } | null };
  return typeof json?.message === "string" ? json.message : undefined;
}
