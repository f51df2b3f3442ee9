import { TRPCError } from "@trpc/server";
import type { FastifyRequest } from "fastify";
import { toSearch } from "../http/request-url.ts";
import { findMember, withSource } from "../../json/json-text.ts";

/** The text of a request's input: of all calls together if the request is a batch. */
export function readInputText({ method, body, url }: FastifyRequest): string | undefined {
  const text = method === "GET" ? new URLSearchParams(toSearch(url)).get("input") : body;
  return typeof text === "string" && text !== "" ? text : undefined;
}

export function isBatch({ url }: FastifyRequest): boolean {
  return new URLSearchParams(toSearch(url)).get("batch") === "1";
}

/** The text of the input of one call, by its position in the batch. */
export function findInputText(request: FastifyRequest, batchIndex: number): string | undefined {
  const text = readInputText(request);
  return text !== undefined && isBatch(request) ? findMember(text, String(batchIndex)) : text;
}

/** The fields of inputs that go to an engine. */
const PASSED_ON: readonly string[] = ["request", "params", "config", "contentBlocks"];

/** Notes the source text of those fields, so that the engine gets that text and not what JavaScript makes of it. */
export function noteSources(input: object, findText: () => string | undefined): void {
  for (const name of PASSED_ON) {
    const value: unknown = Object.hasOwn(input, name) ? (input as Record<string, unknown>)[name] : undefined;
    if (typeof value !== "object" || value === null) continue;
    const text = findText();
    const source = text === undefined ? undefined : findMember(text, name);
    if (source !== undefined) withSource(value, source);
  }
}

/** Throws BAD_REQUEST for text that is no JSON, without the parser's own message, which quotes the text. */
export function parseInput(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new TRPCError({ code: "BAD_REQUEST", message: "the input is not valid JSON", cause });
  }
}
