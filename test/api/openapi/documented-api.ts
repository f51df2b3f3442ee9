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
  /** The problems of a procedure's input. */
  judgeInput(path: string, input: unknown): string[];
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

const escape = (part: string) => encodeURIComponent(part.replaceAll("~", "~0").replaceAll("/", "~1"));

/** Makes every object refuse the fields that it does not list. */
function close(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(close);
  if (typeof schema !== "object" || schema === null) return schema;
  const closed = Object.fromEntries(Object.entries(schema).map(([name, value]) => [name, close(value)]));
  const isOpen = closed["type"] === "object" && "properties" in closed && !("additionalProperties" in closed);
  return isOpen ? { ...closed, additionalProperties: false } : closed;
}
