import { createParser } from "eventsource-parser";
import type { ServerResponse } from "node:http";
import type { Config } from "../../../server/config/config.ts";
import type { Behaviour } from "../../rpc/hostile-engine.ts";
import { expect } from "vitest";
import { type Api, openApi } from "../open-api.ts";
import { openDocumentedApi } from "../openapi/documented-api.ts";

export interface RawEvent {
  id: string | undefined;
  event: string | undefined;
  /** The text after `data: `. */
  data: string;
}

export interface RawReply {
  status: number;
  headers: Headers;
  text: string;
  /** Of a stream. */
  events: RawEvent[];
  // Any JSON: each test knows what it expects.
  // oxlint-disable-next-line typescript/no-explicit-any
  body: any;
}

export interface RawCall {
  /** By default the key of the product. "": none. */
  key?: string;
  headers?: Record<string, string>;
  /** Text is sent as it is. */
  body?: unknown;
  /** The test makes up the refusal, so the API document need not list it. */
  isMadeUp?: boolean;
}

export interface Raw extends AsyncDisposable {
  readonly api: Api;
  readonly productId: string;
  readonly key: string;
  /** Opens a response, whose body the caller reads. */
  open(method: string, path: string, call?: RawCall): Promise<Response>;
  /** Reads the response to its end, and checks it against the API document. */
  send(method: string, path: string, call?: RawCall): Promise<RawReply>;
  execute(call: RawCall & { user?: string }): Promise<RawReply>;
  events(turnId: string, call?: RawCall): Promise<RawReply>;
}

/** The whole service with a product whose user `ada` has an engine. */
export async function openRaw(config: Partial<Config> = {}): Promise<Raw> {
  await using stack = new AsyncDisposableStack();
  const api = stack.use(await openApi({ config }));
  const { productId, apiKey: key } = await api.register("raw");
  await api.mutate("engines.provision", { key, input: { userId: "ada" } });
  const open: Raw["open"] = async (method, path, { key: own = key, headers, body } = {}) => {
    const authorization: Record<string, string> = own === "" ? {} : { authorization: `Bearer ${own}` };
    const type: Record<string, string> = body === undefined ? {} : { "content-type": "application/json" };
    const text = typeof body === "string" ? body : JSON.stringify(body);
    return fetch(`${api.url}${path}`, {
      method,
      headers: { ...authorization, ...type, ...headers },
      ...(body !== undefined && { body: text }),
    });
  };
  const documented = openDocumentedApi();
  const send: Raw["send"] = async (method, path, call) => {
    const reply = await toReply(await open(method, path, call));
    const problems = call?.isMadeUp === true ? [] : documented.judgeRaw({ method, url: path }, reply);
    expect(problems, `${method} ${path}`).toEqual([]);
    return reply;
  };
  const opened = stack.move();
  return {
    api,
    productId,
    key,
    open,
    send,
    execute: async ({ user = "ada", ...call }) => send("POST", `/v1/engines/${user}/execute`, call),
    events: async (turnId, call) => send("GET", `/v1/turns/${turnId}/events`, call),
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
}

async function toReply(response: Response): Promise<RawReply> {
  const { status, headers } = response;
  const text = await response.text();
  const isJson = text !== "" && headers.get("content-type")?.startsWith("application/json") === true;
  return { status, headers, text, events: parseEvents(text), body: isJson ? JSON.parse(text) : undefined };
}

export function parseEvents(text: string): RawEvent[] {
  const events: RawEvent[] = [];
  createParser({ onEvent: ({ id, event, data }) => events.push({ id, event, data }) }).feed(text);
  return events;
}

export const toBody = (taskId: string, more: object = {}) => ({ message: "hi", task_id: taskId, ...more });

export function write(response: ServerResponse, type: string, data: object): void {
  response.write(`event: ${type}\ndata: ${JSON.stringify(data)}\n\n`);
}

/** A turn of three tokens, between the two events of its lifecycle. */
export const threeTokens: Behaviour = (response) => {
  response.writeHead(200, { "content-type": "text/event-stream" });
  write(response, "thread_lifecycle", { phase: "started" });
  for (const text of ["one", "two", "three"]) write(response, "text_delta", { text });
  write(response, "thread_lifecycle", { phase: "completed" });
  response.end();
};

/** A turn with one event, which then stays open. */
export const quiet: Behaviour = (response) => {
  response.writeHead(200, { "content-type": "text/event-stream" });
  write(response, "text_delta", { text: "only" });
};
