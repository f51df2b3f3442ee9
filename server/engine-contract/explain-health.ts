import type { EngineAnswer, ExchangeResult } from "./exchange.ts";
import { toMediaType } from "./errors.ts";
import type { Secrets } from "../secrets/secrets.ts";
import { parseObject } from "./parse-object.ts";

const EXCERPT_MAX_LENGTH = 300;
const WANTED = 'an engine that is ready answers GET /health with 200 and {"status": "ok"}';
const PORT_HINT =
  "the engine must listen on ENGINE_HOST:ENGINE_PORT (process runtime), or on port ORCH_ENGINE_PORT of 0.0.0.0 in its container (Docker)";

/** Why an answer to `/health` does not mean ready: what the engine sent, and what the contract says. */
export function explainNotReady(answer: EngineAnswer, secrets: Secrets): string {
  const { status } = answer;
  const excerpt = toExcerpt(answer.text, secrets);
  if (status === 404 || status === 405) {
    return `/health answered ${status}: ${excerpt}; GET /health must exist, without a prefix in the path`;
  }
  if (status >= 300 && status < 400)
    return `/health answered ${status}: redirects are not followed; ${WANTED}`;
  if (status !== 200) return `/health answered ${status}: ${excerpt}; ${WANTED}`;
  const body = parseObject(answer.text);
  if (body === undefined) {
    const type = toMediaType(secrets.hide(answer.contentType));
    return `/health answered 200 (${type}) with a body that is no JSON object: ${excerpt}; ${WANTED}`;
  }
  const what = Object.hasOwn(body, "status") ? "another status" : "no status";
  return `/health answered 200 with ${what}: ${excerpt}; ${WANTED}`;
}

/** Why no answer to `/health` came. */
export function explainNoHealth(
  failed: Extract<ExchangeResult, { kind: "failed" }>,
  endpoint: string,
): string {
  switch (failed.stage) {
    case "connecting":
      return `nothing answers at ${endpoint} (${failed.why}): ${PORT_HINT}`;
    case "waiting":
      return `the connection to ${endpoint} ended without an answer (${failed.why}): ${PORT_HINT}`;
    case "answering":
      return `the answer to /health is not usable: ${failed.why}; engines speak HTTP/1.1`;
  }
}

/** The beginning of an answer on one line, enough to recognise it in a log. */
function toExcerpt(text: string, secrets: Secrets): string {
  const line = secrets
    .hideInStart(text, EXCERPT_MAX_LENGTH)
    .replaceAll(/[\s\p{Cc}]+/gu, " ")
    .trim();
  return line === "" ? "an empty body" : line.toWellFormed();
}
