import { randomUUID } from "node:crypto";
import type { FastifyRequest } from "fastify";
import { DomainError } from "../../errors.ts";
import { REQUEST_MAX_BYTES, TURN_START_MAX_BYTES } from "../http/json-bodies.ts";
import { Uuid } from "../routers/field-schemas.ts";
import { toPersonAnswer } from "./person-answer.ts";
import { readQuery } from "./raw-query.ts";
import { toTurnRequest } from "./turn-request.ts";

/** A route that calls a procedure for callers without tRPC. */
export interface RawRoute {
  method: "GET" | "POST";
  /** As fastify writes a path with parameters. */
  url: string;
  /** A subscription streams plain server-sent events. Another procedure answers its output as JSON. */
  procedure: string;
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
      const idempotencyKey = findIdempotencyKey(request);
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
  if (request.turnId === null) {
    const message = "must be a UUID: it is the turn's id";
    throw new DomainError("INVALID_INPUT", `the header Idempotency-Key ${message}`, {
      issues: [{ path: "Idempotency-Key", message }],
    });
  }
  return {
    ...query,
    turnId: request.turnId,
    userId: readParameter(request, "userId"),
    request: toTurnRequest(request.body),
    // Text that is no number stays text, which the procedure refuses.
    ...(expectGeneration !== undefined && { expectGeneration: toNumber(expectGeneration) }),
    ...toCursor(request, undefined),
  };
}

/** The header wins: a browser's EventSource sends it when it comes back, to the URL that it began with. */
function toCursor({ headers }: FastifyRequest, fromQuery: string | undefined): { lastEventId?: string } {
  const header = headers["last-event-id"];
  const lastEventId = (typeof header === "string" && header !== "" ? header : undefined) ?? fromQuery;
  return lastEventId === undefined ? {} : { lastEventId };
}

function toNumber(text: string): number | string {
  return /^\d{1,15}$/.test(text) ? Number(text) : text;
}

function readParameter({ params }: FastifyRequest, name: string): string | undefined {
  return (params as Record<string, string | undefined>)[name];
}

function findTurnIdInPath(request: FastifyRequest): string | undefined {
  return toUuid(readParameter(request, "turnId"));
}

/** Without the header, the caller names the turn by the id in the reply. */
function findOrMakeTurnId(request: FastifyRequest): string | undefined {
  const key = findIdempotencyKey(request);
  return key === undefined ? randomUUID() : toUuid(key);
}

function findIdempotencyKey({ headers }: FastifyRequest): string | undefined {
  const header = headers["idempotency-key"];
  if (typeof header !== "string" || header === "") return undefined;
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
