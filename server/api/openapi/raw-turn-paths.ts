import { ENGINE_NAMES } from "../../engine-contract/execute-body.ts";
import { RAW_ROUTES, type RawRoute } from "../raw/raw-routes.ts";
import { ExpectGeneration, UserId, Uuid } from "../routers/field-schemas.ts";
import { EndSchema, ExecuteRequestSchema, PersonAnswer } from "../routers/turn-schemas.ts";
import { ProductField } from "../trpc/procedures.ts";
import type { ComponentSchemas, JsonSchema } from "./component-schemas.ts";
import { type DocumentedProcedure, listProcedures } from "./documented-procedure.ts";
import {
  eventStreamContent,
  jsonContent,
  LAST_EVENT_ID_PARAMETER,
  type Operation,
  type PathItem,
  RATE_HEADERS,
  REQUEST_ID_PARAMETER,
  toRefusals,
  toResponse,
  toSecurity,
  TURN_ID_HEADER,
} from "./operation.ts";
import { toReasons } from "./procedure-reasons.ts";
import { GapSchema } from "./reply-schemas.ts";

const HEADERS = { ...TURN_ID_HEADER, ...RATE_HEADERS };

/** What the document says of a raw route beyond its procedure. */
interface RouteText {
  operationId: string;
  summary: string;
  description: string;
  parameters: (schemas: ComponentSchemas) => object[];
  body?: (schemas: ComponentSchemas) => JsonSchema;
}

/** By method and URL, one entry for each raw route. */
const TEXTS: Readonly<Record<string, RouteText>> = {
  "POST /v1/engines/:userId/execute": {
    operationId: "execute",
    summary: "Starts a turn and streams its events, from the first to the end.",
    description:
      "The same turn as with `turns.execute`, as plain server-sent events. Make the turn's id yourself and send it as `Idempotency-Key`: then the same request joins the turn after a lost connection, and starts nothing. With `Last-Event-ID` nothing is started either. Leaving the stream does not end the turn.",
    parameters: (schemas) => [
      pathParameter("userId", schemas.ofInput(UserId), "The user whose engine gets the turn, URL-encoded."),
      {
        name: "Idempotency-Key",
        in: "header",
        required: false,
        description:
          "The turn's id, a UUID. Without it, the service makes one: see `X-Turn-Id` in the reply. Required with `Last-Event-ID`.",
        schema: { type: "string", format: "uuid" },
      },
      LAST_EVENT_ID_PARAMETER,
      queryParameter("expectGeneration", schemas.ofInput(ExpectGeneration)),
      queryParameter("product", schemas.ofInput(ProductField)),
    ],
    body: toEngineBody,
  },
  "GET /v1/turns/:turnId/events": {
    operationId: "events",
    summary: "Streams the events of a turn, from the beginning or after a cursor, to its end.",
    description:
      "A browser's EventSource can read it behind a gateway that adds the key: it comes back with `Last-Event-ID` by itself, and 204 stops it after the end.",
    parameters: (schemas) => [
      pathParameter("turnId", schemas.ofInput(Uuid), "The turn's id."),
      LAST_EVENT_ID_PARAMETER,
      queryParameter("lastEventId", {
        type: "string",
        pattern: "^[0-9]{1,15}$",
        description:
          "The same as the header `Last-Event-ID`, for clients that cannot set it. The header wins.",
      }),
      queryParameter("product", schemas.ofInput(ProductField)),
    ],
  },
  "POST /v1/turns/:turnId/cancel": {
    operationId: "cancel",
    summary: "Cancels a turn, and returns it.",
    description: "The same as `turns.cancel`. It takes no body.",
    parameters: (schemas) => [
      pathParameter("turnId", schemas.ofInput(Uuid), "The turn's id."),
      queryParameter("product", schemas.ofInput(ProductField)),
    ],
  },
  "POST /v1/turns/:turnId/respond": {
    operationId: "respond",
    summary: "Gives a person's answer to a turn that waits for it.",
    description: "The same as `turns.respond`. The turn goes on, and its stream shows it.",
    parameters: (schemas) => [
      pathParameter("turnId", schemas.ofInput(Uuid), "The turn that asks."),
      {
        name: "Idempotency-Key",
        in: "header",
        required: false,
        description:
          "Your name for this call. The same call with the same key has its effect once, for 24 hours. Without it, do not repeat a call whose connection broke.",
        schema: { type: "string", minLength: 1, maxLength: 128 },
      },
      queryParameter("product", schemas.ofInput(ProductField)),
    ],
    body: toAnswerBody,
  },
};

/** The paths of the raw routes for turns. Throws for a route without a text. */
export function toRawTurnPaths(schemas: ComponentSchemas): Record<string, PathItem> {
  const procedures = new Map(listProcedures().map((procedure) => [procedure.path, procedure]));
  return Object.fromEntries(
    RAW_ROUTES.map((route) => {
      const key = `${route.method} ${route.url}`;
      const text = TEXTS[key];
      const procedure = procedures.get(route.procedure);
      if (text === undefined || procedure === undefined) {
        throw new Error(`the API document says nothing about ${key}: add it to raw-turn-paths.ts`);
      }
      const path = route.url.replaceAll(/:(\w+)/g, "{$1}");
      return [path, { [toMethod(route)]: toOperation(procedure, text, schemas) }];
    }),
  );
}

function toMethod({ method }: RawRoute): "get" | "post" {
  return method === "GET" ? "get" : "post";
}

function toOperation(procedure: DocumentedProcedure, text: RouteText, schemas: ComponentSchemas): Operation {
  const { operationId, summary, description, parameters, body } = text;
  const reasons = toReasons(procedure);
  return {
    tags: ["turns"],
    operationId,
    summary,
    description,
    security: toSecurity(procedure.meta.access),
    parameters: [...parameters(schemas), REQUEST_ID_PARAMETER],
    ...(body && { requestBody: { required: true, content: jsonContent(body(schemas)) } }),
    "x-reasons": reasons,
    responses: {
      ...(procedure.output === undefined
        ? {
            200: toStream(schemas),
            204: toResponse("You have the end already. There is nothing to come back for."),
          }
        : { 200: toResponse("The reply.", jsonContent(schemas.ofOutput(procedure.output)), HEADERS) }),
      ...toRefusals(reasons, "RawRefusal"),
    },
  };
}

function toStream(schemas: ComponentSchemas): Operation {
  const content = eventStreamContent([
    {
      event: "<the engine's type>",
      id: "The event's sequence number: the cursor after it.",
      meaning:
        "an event of the engine, with the data as the engine sent them, as JSON on one line. `message` if the engine named no type. A type that begins with `enginehouse.` has `engine.` before it.",
      data: { description: "Any JSON: see the engine contract." },
    },
    {
      event: "enginehouse.gap",
      id: "The last missing sequence number. With the reason `unknown_cursor`, the cursor to read on from.",
      meaning: "events that cannot be read any more. More events follow.",
      data: schemas.ofOutput(GapSchema),
    },
    {
      event: "enginehouse.end",
      id: "The end's own sequence number.",
      meaning: "the end of the turn, once and last. Then the response ends.",
      data: schemas.ofOutput(EndSchema),
    },
  ]);
  const description =
    "The stream. After 15 s of silence comes a comment line. If the stream ends without `enginehouse.end`, come back with `Last-Event-ID`.";
  return toResponse(description, content, HEADERS);
}

/** The body of `/execute` in the engine's own spelling. */
function toEngineBody(schemas: ComponentSchemas): JsonSchema {
  const { properties, required, ...rest } = schemas.ofInput(ExecuteRequestSchema) as {
    properties: JsonSchema;
    required: string[];
  };
  const renamed = Object.entries(properties).map(([name, schema]) => [toEngineName(name), schema]);
  return {
    ...rest,
    description:
      "The body of the engine's `/execute`. It goes to the engine unchanged: unknown fields too, and numbers as you wrote them.",
    properties: Object.fromEntries(renamed),
    required: required.map(toEngineName),
  };
}

/** A person's answer, whose turn is in the path and whose key is in a header. */
function toAnswerBody(schemas: ComponentSchemas): JsonSchema {
  const { properties, ...rest } = schemas.ofInput(PersonAnswer) as { properties: JsonSchema };
  const { requestId, answer, feedback, contentBlocks } = properties;
  return { ...rest, properties: { request_id: requestId, answer, feedback, content_blocks: contentBlocks } };
}

function toEngineName(name: string): string {
  return ENGINE_NAMES.get(name) ?? name;
}

function pathParameter(name: string, schema: JsonSchema, description: string): object {
  return { name, in: "path", required: true, description, schema };
}

/** Its meaning is the schema's. */
function queryParameter(name: string, { description, ...schema }: JsonSchema): object {
  return { name, in: "query", required: false, description, schema };
}
