import type { z } from "zod";
import type { Access } from "../../admission/admit-call.ts";
import type { Reason } from "../../errors.ts";
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
} from "./operation.ts";
import { toReasons } from "./procedure-reasons.ts";
import { ConnectedSchema, StreamRefusal, TurnItemSchema } from "./reply-schemas.ts";

/** A stream's call is refused with its HTTP status only while its body is read. */
const BEFORE_STREAM: readonly Reason[] = [
  "INVALID_INPUT",
  "INVALID_KEY",
  "KEY_EXPIRED",
  "KEY_REVOKED",
  "REQUEST_TOO_LARGE",
  "RATE_LIMITED",
  "DATABASE_UNAVAILABLE",
];

/** The paths below `/trpc`, one for each procedure. */
export function toTrpcPaths(schemas: ComponentSchemas): Record<string, PathItem> {
  return Object.fromEntries(
    listProcedures().map((procedure) => [`/trpc/${procedure.path}`, toPathItem(procedure, schemas)]),
  );
}

/** Mutations are POST only. The others are GET, and POST for an input that is too long for a URL. */
function toPathItem(procedure: DocumentedProcedure, schemas: ComponentSchemas): PathItem {
  const { path, type, input } = procedure;
  const shared = toShared(procedure, schemas);
  const sent = input && toInput(procedure, input, schemas);
  const post = {
    ...shared,
    operationId: type === "mutation" ? path : `${path}.post`,
    parameters: toHeaders(type),
    ...(sent && { requestBody: { required: sent.required, content: jsonContent(sent.schema) } }),
  };
  if (type === "mutation") return { post };
  const query = sent && {
    name: "input",
    in: "query",
    required: sent.required,
    description: "The input as JSON, URL-encoded.",
    content: jsonContent(sent.schema),
  };
  const parameters = [...(query ? [query] : []), ...toHeaders(type)];
  return { get: { ...shared, operationId: path, parameters }, post };
}

function toHeaders(type: DocumentedProcedure["type"]): object[] {
  return [REQUEST_ID_PARAMETER, ...(type === "subscription" ? [LAST_EVENT_ID_PARAMETER] : [])];
}

function toShared(procedure: DocumentedProcedure, schemas: ComponentSchemas): Operation {
  const { path, meta, output } = procedure;
  const reasons = toReasons(procedure);
  return {
    tags: [path.split(".", 1)[0]],
    summary: meta.summary,
    ...(meta.description !== undefined && { description: meta.description }),
    security: toSecurity(meta.access),
    "x-reasons": reasons,
    responses:
      output === undefined
        ? { 200: toStream(schemas), ...toRefusals(BEFORE_STREAM, "TrpcRefusal") }
        : {
            200: toResponse(
              "The reply.",
              jsonContent(toEnvelope(schemas.ofOutput(output))),
              toRateHeaders(meta.access),
            ),
            ...toRefusals(reasons, "TrpcRefusal"),
          },
  };
}

function toInput(
  { meta: { access } }: DocumentedProcedure,
  input: z.ZodType,
  schemas: ComponentSchemas,
): { required: boolean; schema: JsonSchema } {
  const schema = schemas.ofInput(input);
  const required = !input.safeParse(undefined).success;
  if (access === undefined || access === "operator") return { required, schema };
  const { properties = {}, ...rest } = schema as { properties?: JsonSchema };
  return {
    required,
    schema: { ...rest, properties: { ...properties, product: schemas.ofInput(ProductField) } },
  };
}

function toEnvelope(data: JsonSchema): JsonSchema {
  const result = {
    type: "object",
    description: "The envelope of every success.",
    properties: { data: { description: "What the procedure returns.", ...data } },
    required: ["data"],
  };
  return { type: "object", properties: { result }, required: ["result"] };
}

function toStream(schemas: ComponentSchemas): Operation {
  const content = eventStreamContent([
    {
      event: "connected",
      meaning: "the stream is open.",
      data: schemas.ofOutput(ConnectedSchema),
    },
    {
      event: null,
      id: "The cursor after this item: send it as `Last-Event-ID` to go on after it.",
      meaning: "an item. Its `id` is the cursor after it.",
      data: schemas.ofOutput(TurnItemSchema),
    },
    { event: "ping", meaning: "sent after 15 s of silence." },
    {
      event: "serialized-error",
      meaning:
        "a refusal, which ends the stream. If its `httpStatus` is 5xx or 429, come back after `retryAfterMs`; otherwise stop.",
      data: schemas.ofOutput(StreamRefusal),
    },
    { event: "return", meaning: "the stream is complete. Do not come back." },
  ]);
  const description =
    "The stream. It has this status also when the call is refused: then the refusal is a message. If the stream ends without `return` and without `serialized-error`, come back with the last `id`.";
  return toResponse(description, content, RATE_HEADERS);
}

/** Only calls of products are counted. */
function toRateHeaders(access: Access | undefined): object {
  return access === undefined || access === "operator" ? {} : RATE_HEADERS;
}
