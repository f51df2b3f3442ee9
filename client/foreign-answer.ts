import { ConnectionError, type Failure } from "./connection-error.ts";

/** What answered instead of a replica, and what it was asked. */
export interface ForeignAnswer {
  /** The client's url. */
  url: string;
  path: string;
  /** Of the request's body. */
  sentCharacters: number;
  response: Pick<Response, "status" | "headers" | "type">;
  text: string;
}

/** The error for an answer that does not come from a replica: of a gateway, a firewall, a login page, another server. */
export function toForeignError(answer: ForeignAnswer): ConnectionError {
  const { url, response, sentCharacters } = answer;
  const { status } = response;
  const said = `${url} answered ${describe(answer)}`;
  if (isRedirect(response)) {
    return new ConnectionError(
      { kind: "foreign", reason: "UNEXPECTED_ANSWER" },
      `${said}: ${toHint(answer)}`,
    );
  }
  if (status === 413) {
    const message = `${said}: it takes no request of ${sentCharacters} characters`;
    return new ConnectionError({ kind: "foreign", reason: "REQUEST_TOO_LARGE" }, message);
  }
  const isPassing = isPassingStatus(status);
  const failure: Failure = isPassing
    ? { kind: "gateway", status, retryAfterMs: findRetryAfterMs(response.headers) }
    : { kind: "foreign", reason: "UNEXPECTED_ANSWER" };
  const advice = isPassing ? "" : ": check the client's url, and what stands between";
  return new ConnectionError(failure, `${said} instead of a reply of Enginehouse${advice}`);
}

/** Whether a gateway uses this status for a trouble that may pass. 520 to 530 are Cloudflare's, 598 and 599 Azure's. */
function isPassingStatus(status: number): boolean {
  const isNamed = [408, 425, 429, 502, 503, 504, 598, 599].includes(status);
  return isNamed || (status >= 520 && status <= 530);
}

function isRedirect({ status, type }: ForeignAnswer["response"]): boolean {
  return type === "opaqueredirect" || [301, 302, 303, 307, 308].includes(status);
}

/** A redirect loses the key or the body on its way, so the client follows none. */
function toHint({ url, path, response }: ForeignAnswer): string {
  const location = response.headers.get("location");
  // Browsers hide the target.
  if (location === null || !URL.canParse(location, url))
    return "the client follows no redirect, so set the url that it points to";
  // Without the query: that of a login page may have a secret.
  const { origin, pathname } = new URL(location, url);
  const target = origin + pathname;
  const base = target.endsWith(`/trpc/${path}`) ? target.slice(0, -`/trpc/${path}`.length) : undefined;
  const advice = base === undefined ? "check the client's url" : `set the client's url to ${base}`;
  return `the client follows no redirect. This one points to ${target}: ${advice}`;
}

function describe({ response, text }: ForeignAnswer): string {
  const { status, headers, type } = response;
  if (type === "opaqueredirect") return "with a redirect";
  const media = /^[\w.+/-]{1,60}/.exec(headers.get("content-type") ?? "")?.[0] ?? "no content type";
  const parts = [media];
  for (const name of ["server", "via"]) {
    const value = headers.get(name);
    if (value !== null) parts.push(`${name}: ${shorten(value, 60)}`);
  }
  const title = /<title[^>]*>([^<]*)/i.exec(text.slice(0, 4_000))?.[1] ?? text.slice(0, 2_000);
  const words = shorten(title.replaceAll(/<(?:style|script)[^]*?<\/(?:style|script)>|<[^>]*>/gi, " "), 80);
  parts.push(words === "" ? "an empty body" : `"${words}"`);
  return `${status} (${parts.join(", ")})`;
}

function shorten(text: string, maxLength: number): string {
  const line = text.replaceAll(/[\p{Cc}\s]+/gu, " ").trim();
  return line.length <= maxLength ? line : `${line.slice(0, maxLength)}…`;
}

/** The header holds seconds or a date. */
function findRetryAfterMs(headers: Headers): number | undefined {
  const text = headers.get("retry-after");
  if (text === null) return undefined;
  const ms = /^\d+$/.test(text) ? Number(text) * 1_000 : Date.parse(text) - Date.now();
  return Number.isFinite(ms) ? Math.max(0, ms) : undefined;
}
