import { randomUUID } from "node:crypto";
import type { FastifyRequest } from "fastify";
import { DomainError } from "../../errors.ts";
import { REQUEST_MAX_BYTES, TURN_START_MAX_BYTES } from "../http/json-bodies.ts";
import { Uuid } from "../routers/field-schemas.ts";
import type { AppRouter } from "../routers/router.ts";
import { findLastEventId } from "../sse/last-event-id.ts";
import { toPersonAnswer } from "./person-answer.ts";
import { readQuery } from "./raw-query.ts";
import { toTurnRequest } from "./turn-request.ts";

const KEY_HEADER = "Idempotency-Key";
/** The longest part of a refused value that a message repeats. */
const MAX_SHOWN_LENGTH = 40;
type Turns = AppRouter["_def"]["record"]["turns"];
/** Procedures about turns. Without the queries, because the raw routes call no others than subscriptions and mutations. */
export type RawProcedure = {
  [Name in keyof Turns]: Turns[Name] extends { _def: { type: "subscription" | "mutation" } }
    ? `turns.${Name}`
    : never;
}[keyof Turns];

/** A route that calls a procedure for callers without tRPC. */
export interface RawRoute {
  method: "GET" | "POST";
  /** As fastify writes a path with parameters. */
  url: string;
  /** A subscription streams plain server-sent events. A mutation answers its output as JSON. */
  procedure: RawProcedure;
  bodyMaxBytes: number;
  /** The turn that the request is about, for the header `X-Turn-Id`. undefined: the request names no valid one. */
  findTurnId: (request: FastifyRequest) => string | undefined;
  /** Makes the procedure's input. Called after the caller's key was accepted. Throws INVALID_INPUT. */
  toInput: (request: FastifyRequest) => unknown;
}

export const RAW_ROUTES: readonly RawRoute[] = [
  {
    method: "POST",
    url: "/v1/engines/:userId/execute",
    procedure: "turns.execute",
    bodyMaxBytes: TURN_START_MAX_BYTES,
    findTurnId: findOrMakeTurnId,
    toInput: toExecuteInput,
  },
  {
    method: "GET",
    url: "/v1/turns/:turnId/events",
    procedure: "turns.events",
    bodyMaxBytes: REQUEST_MAX_BYTES,
    findTurnId: findTurnIdInPath,
    toInput: (request) => {
      const { lastEventId, ...query } = readQuery(request, ["product", "lastEventId"]);
      return { ...query, turnId: readParameter(request, "turnId"), ...toCursor(request, lastEventId) };
    },
  },
  {
    method: "POST",
    url: "/v1/turns/:turnId/cancel",
    procedure: "turns.cancel",
    bodyMaxBytes: REQUEST_MAX_BYTES,
    findTurnId: findTurnIdInPath,
    toInput: (request) => {
      requireNoBody(request);
      return { ...readQuery(request, ["product"]), turnId: readParameter(request, "turnId") };
    },
  },
  {
    method: "POST",
    url: "/v1/turns/:turnId/respond",
    procedure: "turns.respond",
    bodyMaxBytes: REQUEST_MAX_BYTES,
    findTurnId: findTurnIdInPath,
    toInput: (request) => {
      const idempotencyKey = getIdempotencyKey(request);
      return {
        ...toPersonAnswer(request.body),
        ...readQuery(request, ["product"]),
        turnId: readParameter(request, "turnId"),
        ...(idempotencyKey !== undefined && { idempotencyKey }),
      };
    },
  },
];

function toExecuteInput(request: FastifyRequest): object {
  const { expectGeneration, ...query } = readQuery(request, ["product", "expectGeneration"]);
  return {
    ...query,
    turnId: request.turnId ?? refuseTurnId(request),
    userId: readParameter(request, "userId"),
    request: toTurnRequest(request.body),
    ...(expectGeneration !== undefined && { expectGeneration: toGeneration(expectGeneration) }),
    ...toCursor(request, undefined),
  };
}

function toCursor(request: FastifyRequest, fromQuery: string | undefined): { lastEventId?: string } {
  const lastEventId = findLastEventId(request, fromQuery);
  return lastEventId === undefined ? {} : { lastEventId };
}

function toGeneration(text: string): number {
  if (/^\d{1,15}$/.test(text)) return Number(text);
  const message = `must be a number, the engine's \`generation\`, not ${JSON.stringify(toShown(text))}`;
  throw toRefusal("the query parameter expectGeneration", "expectGeneration", message);
}

function toShown(text: string): string {
  return text.length <= MAX_SHOWN_LENGTH ? text : `${text.slice(0, MAX_SHOWN_LENGTH).toWellFormed()}…`;
}

function toRefusal(what: string, path: string, message: string): DomainError {
  return new DomainError("INVALID_INPUT", `${what} ${message}`, { issues: [{ path, message }] });
}

function readParameter({ params }: FastifyRequest, name: string): string | undefined {
  return (params as Record<string, string | undefined>)[name];
}

function findTurnIdInPath(request: FastifyRequest): string | undefined {
  return toUuid(readParameter(request, "turnId"));
}

/** Without the header, the caller names the turn by the id in the reply. A caller with a cursor has an id already. */
function findOrMakeTurnId(request: FastifyRequest): string | undefined {
  const key = findIdempotencyKey(request);
  if (key !== undefined) return toUuid(key);
  return hasCursor(request) ? undefined : randomUUID();
}

function refuseTurnId(request: FastifyRequest): never {
  if (findIdempotencyKey(request) !== undefined) {
    throw toRefusal(`the header ${KEY_HEADER}`, KEY_HEADER, "must be a UUID: it is the turn's id");
  }
  const message = "is missing: with Last-Event-ID, send the turn's id as Idempotency-Key, too";
  throw toRefusal(`the header ${KEY_HEADER}`, KEY_HEADER, message);
}

function hasCursor(request: FastifyRequest): boolean {
  return toCursor(request, undefined).lastEventId !== undefined;
}

/** Throws for an empty header: its sender wanted a key, and has lost it. */
function getIdempotencyKey(request: FastifyRequest): string | undefined {
  const key = findIdempotencyKey(request);
  if (key !== "") return key;
  throw toRefusal(
    `the header ${KEY_HEADER}`,
    KEY_HEADER,
    "is empty: send your key for this call, or no such header",
  );
}

function findIdempotencyKey({ headers }: FastifyRequest): string | undefined {
  const header = headers["idempotency-key"];
  if (typeof header !== "string") return undefined;
  // The header's draft standard has quotes around the key, and most clients send none.
  return header.replace(/^"(.*)"$/, "$1");
}

function toUuid(text: string | undefined): string | undefined {
  const parsed = Uuid.safeParse(text);
  return parsed.success ? parsed.data : undefined;
}

function requireNoBody({ body }: FastifyRequest): void {
  if (typeof body !== "string" || /^\s*(?:\{\s*\})?\s*$/.test(body)) return;
  throw new DomainError("INVALID_INPUT", "this route takes no body: leave it out");
}
