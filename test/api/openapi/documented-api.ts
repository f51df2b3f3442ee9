import { Ajv2020, type ValidateFunction } from "ajv/dist/2020.js";
import formats from "ajv-formats";
import { toApiDocument } from "../../../server/api/openapi/api-document.ts";
import { listProcedures } from "../../../server/api/openapi/documented-procedure.ts";
import { toReasons } from "../../../server/api/openapi/procedure-reasons.ts";

type Json = Record<string, unknown>;

export interface DocumentedApi {
  /** The problems of a reply to a procedure's call; none if it is as the document says, or is about no procedure. */
  judgeReply(url: string, reply: { status: number; body: unknown }): string[];
  /** The problems of a message of a subscription. */
  judgeMessage(path: string, message: { event: string | undefined; data: unknown }): string[];
  /** The problems of a reply of a raw route; none if the document has no such route. */
  judgeRaw(request: { method: string; url: string }, reply: RawReply): string[];
  /** The problems of a procedure's input. */
  judgeInput(path: string, input: unknown): string[];
}

interface RawReply {
  status: number;
  /** Of JSON. */
  body?: unknown;
  /** Of a stream. `data` is text. */
  events: readonly { event: string | undefined; data: string }[];
}

interface RawOperation {
  "x-reasons"?: readonly string[];
  responses: Record<string, { $ref?: string }>;
}

/**
 * Checks real replies against the document. A field that the document does not list is a problem here, although callers
 * must accept it.
 */
export function openDocumentedApi(): DocumentedApi {
  const document = toApiDocument();
  const ajv = new Ajv2020({ allErrors: true, strict: false });
  formats.default(ajv);
  ajv.addSchema(close(structuredClone(document)) as Json, "api");
  const reasons = new Map(listProcedures().map((procedure) => [procedure.path, toReasons(procedure)]));
  const compiled = new Map<string, ValidateFunction>();
  const judge = (pointer: string, value: unknown): string[] => {
    const check = compiled.get(pointer) ?? ajv.compile({ $ref: `api#${pointer}` });
    compiled.set(pointer, check);
    if (check(value)) return [];
    return (check.errors ?? []).map(({ instancePath, message, params }) =>
      [instancePath, message, JSON.stringify(params)].join(" "),
    );
  };
  const judgeReason = (path: string, error: unknown): string[] => {
    const { reason, path: failed } = (error as { data: { reason: string; path: string | null } }).data;
    const known: readonly string[] = reasons.get(path) ?? [];
    if (failed === null || known.includes(reason)) return [];
    return [`${path} refused with ${reason}, which its document does not list`];
  };
  const pointerOf = (path: string, ...rest: string[]) => {
    const item = document.paths[`/trpc/${path}`] ?? {};
    const method = "get" in item ? "get" : "post";
    return ["", "paths", `/trpc/${path}`, method, ...rest].map(escape).join("/");
  };
  return {
    judgeReply: (url, { status, body }) => {
      const path = /^\/trpc\/([\w.]+)(?:$|\?input=)/.exec(url)?.[1];
      if (path === undefined || !reasons.has(path)) return [];
      if (status !== 200) {
        const { error } = body as { error: unknown };
        return [...judge("/components/schemas/TrpcRefusal", body), ...judgeReason(path, error)];
      }
      return judge(pointerOf(path, "responses", "200", "content", "application/json", "schema"), body);
    },
    judgeMessage: (path, { event, data }) => {
      const name = MESSAGES[event ?? ""];
      if (name === undefined) return data === "" ? [] : [`the document lists no data of the event ${event}`];
      const problems = judge(`/components/schemas/${name}`, data);
      return event === "serialized-error" ? [...problems, ...judgeReason(path, data)] : problems;
    },
    judgeRaw: ({ method, url }, { status, body, events }) => {
      const path = Object.keys(document.paths).find((one) => toPattern(one).test(url.split("?", 1)[0] ?? ""));
      const operation = document.paths[path ?? ""]?.[method.toLowerCase()] as RawOperation | undefined;
      if (path?.startsWith("/v1/") !== true || operation?.["x-reasons"] === undefined) return [];
      const response =
        operation.responses[status] ?? (BROKEN.includes(status) && operation.responses["default"]);
      if (!response) return [`${method} ${path} answered ${status}, which its document does not list`];
      if (status >= 400) {
        const { reason } = (body as { error: { reason: string } }).error;
        const isKnown = operation["x-reasons"].includes(reason);
        const problems = judge("/components/schemas/RawRefusal", body);
        return isKnown
          ? problems
          : [...problems, `${path} refused with ${reason}, which its document does not list`];
      }
      const inDocument = ["", "paths", path, method.toLowerCase(), "responses", String(status), "content"];
      if (body !== undefined)
        return judge([...inDocument, "application/json", "schema"].map(escape).join("/"), body);
      return events.flatMap(({ event, data }) => {
        const name = RAW_EVENTS[event ?? ""];
        const value: unknown = JSON.parse(data);
        return name === undefined ? [] : judge(`/components/schemas/${name}`, value);
      });
    },
    judgeInput: (path, input) =>
      judge(
        ["", "paths", `/trpc/${path}`, "post", "requestBody", "content", "application/json", "schema"]
          .map(escape)
          .join("/"),
        input,
      ),
  };
}

const MESSAGES: Readonly<Record<string, string>> = {
  "": "TurnItem",
  connected: "Connected",
  "serialized-error": "TrpcError",
};

const RAW_EVENTS: Readonly<Record<string, string>> = {
  "enginehouse.end": "TurnEnd",
  "enginehouse.gap": "TurnGap",
};

/** The statuses of a request that is broken before it reaches its route. */
const BROKEN: readonly number[] = [400, 404, 405, 408, 413, 415, 431];

const toPattern = (path: string) =>
  new RegExp(`^${path.replaceAll(".", "\\.").replaceAll(/\{\w+\}/g, "[^/]+")}$`);

const escape = (part: string) => encodeURIComponent(part.replaceAll("~", "~0").replaceAll("/", "~1"));

/** Makes every object refuse the fields that it does not list. */
function close(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(close);
  if (typeof schema !== "object" || schema === null) return schema;
  const closed = Object.fromEntries(Object.entries(schema).map(([name, value]) => [name, close(value)]));
  const isOpen = closed["type"] === "object" && "properties" in closed && !("additionalProperties" in closed);
  return isOpen ? { ...closed, additionalProperties: false } : closed;
}
