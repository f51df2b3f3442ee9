import type { Access } from "../../admission/admit-call.ts";
import type { Reason } from "../../errors.ts";
import { toHttpStatus } from "../trpc/api-error.ts";
import type { JsonSchema } from "./component-schemas.ts";

/** This file has the parts of OpenAPI's operations that tRPC's paths and the other paths share. */

export type Operation = Record<string, unknown>;

/** The operations of one path, by OpenAPI's names of the methods. */
export type PathItem = Partial<Record<"get" | "post", Operation>>;

const REQUEST_ID_HEADER = { "X-Request-Id": { $ref: "#/components/headers/RequestId" } };
/** The headers of replies to a product's key, if the product has a rate limit. */
export const RATE_HEADERS = {
  "RateLimit-Policy": { $ref: "#/components/headers/RateLimitPolicy" },
  RateLimit: { $ref: "#/components/headers/RateLimit" },
};
const REFUSAL_HEADERS = {
  ...REQUEST_ID_HEADER,
  ...RATE_HEADERS,
  "Retry-After": { $ref: "#/components/headers/RetryAfter" },
};

/** The names of the responses to refused requests, in the document's components. */
export type RefusalName = "TrpcRefusal" | "RawRefusal";

/** The header of replies about one turn. */
export const TURN_ID_HEADER = { "X-Turn-Id": { $ref: "#/components/headers/TurnId" } };

export const REQUEST_ID_PARAMETER = { $ref: "#/components/parameters/RequestId" };
export const LAST_EVENT_ID_PARAMETER = { $ref: "#/components/parameters/LastEventId" };

/** OpenAPI's `security`: any of these keys. `undefined` access: no key. */
export function toSecurity(access: Access | undefined): Record<string, readonly string[]>[] {
  if (access === undefined) return [];
  if (access === "operator") return [{ operatorKey: [] }];
  return [{ platformKey: access === "audit" ? ["read"] : access }, { operatorKey: [] }];
}

export function jsonContent(schema: JsonSchema): { "application/json": { schema: JsonSchema } } {
  return { "application/json": { schema } };
}

export function toResponse(description: string, content?: object, headers: object = {}): Operation {
  return { description, headers: { ...REQUEST_ID_HEADER, ...headers }, ...(content && { content }) };
}

/** A component: the body and the headers of all refusals of one kind. */
export function toRefusal(schema: JsonSchema): Operation {
  return { description: "A refusal.", headers: REFUSAL_HEADERS, content: jsonContent(schema) };
}

/** A response for each HTTP status of these reasons, and one for requests that reach nothing. */
export function toRefusals(reasons: readonly Reason[], name: RefusalName): Record<string, Operation> {
  const byStatus = new Map<number, Reason[]>();
  for (const reason of reasons) {
    const status = toHttpStatus(reason);
    byStatus.set(status, [...(byStatus.get(status) ?? []), reason]);
  }
  const statuses = [...byStatus].sort(([a], [b]) => a - b);
  const refer = (description: string) => ({ $ref: `#/components/responses/${name}`, description });
  return {
    ...Object.fromEntries(statuses.map(([status, found]) => [String(status), refer(found.join(", "))])),
    default: refer(
      "The request is broken: INVALID_INPUT or REQUEST_TOO_LARGE with status 400, 404, 405, 408, 413, 415 or 431.",
    ),
  };
}

export interface StreamEvent {
  /** The value of the field `event`, or what it is in angle brackets; null: the message has no such field. */
  event: string | null;
  /** The value of the field `id`. Absent: the message has none. */
  id?: string;
  meaning: string;
  /** The JSON of the field `data`. Absent: `data` is empty. */
  data?: JsonSchema;
}

/** The content of a response of server-sent events. OpenAPI 3.1 has no word for their messages: `x-events` has them. */
export function eventStreamContent(events: readonly StreamEvent[]): object {
  const lines = events.map(
    ({ event, meaning }) => `- ${event === null ? "no `event`" : `\`${event}\``}: ${meaning}`,
  );
  const description = `Server-sent events, UTF-8. The messages:\n${lines.join("\n")}`;
  return { "text/event-stream": { schema: { type: "string", description }, "x-events": events } };
}
