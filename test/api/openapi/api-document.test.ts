import { Validator } from "@seriousme/openapi-schema-validator";
import { afterAll, beforeAll, expect, test } from "vitest";
import { toApiDocument } from "../../../server/api/openapi/api-document.ts";
import { appRouter } from "../../../server/api/routers/router.ts";
import { RAW_ROUTES } from "../../../server/api/raw/raw-routes.ts";
import packageJson from "../../../package.json" with { type: "json" };
import { answer } from "../../rpc/hostile-engine.ts";
import { openFireSite, PROCEDURE_INPUTS } from "../../fire/procedure-inputs.ts";
import { type Api, openApi } from "../open-api.ts";
import { openDocumentedApi } from "./documented-api.ts";

type Json = Record<string, unknown>;

const document = toApiDocument();
const procedures = Object.keys(appRouter._def.procedures);

let api: Api;
beforeAll(async () => {
  api = await openApi();
});
afterAll(async () => {
  await api[Symbol.asyncDispose]();
});

/** The input of a call of its own, which is not refused: the inputs share one idempotency key, and no list has the cursor. */
function toNewCall(path: string, input: object): object {
  const { cursor: _cursor, lastEventId: _lastEventId, ...rest } = input as Json;
  return "idempotencyKey" in rest ? { ...rest, idempotencyKey: path } : rest;
}

/** A refusal of engineKeys.rotate. */
const refuse = (reason: string) => {
  const data = { code: "CONFLICT", httpStatus: 409, path: "engineKeys.rotate", reason, requestId: "r" };
  return { status: 409, body: { error: { message: "no", code: -32_009, data } } };
};

async function collect<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const collected: Item[] = [];
  for await (const item of items) collected.push(item);
  return collected;
}

/** What these end, other procedures need. */
const ENDING = ["engines.stop", "products.remove"];

/** Each object of the document with the names of the way to it. */
function* walk(value: unknown, way: readonly string[] = []): Generator<[readonly string[], Json]> {
  if (typeof value !== "object" || value === null) return;
  if (!Array.isArray(value)) yield [way, value as Json];
  for (const [name, inner] of Object.entries(value)) yield* walk(inner, [...way, name]);
}

test("the document is valid OpenAPI 3.1, and all its references lead somewhere", async () => {
  const validator = new Validator();
  const { valid, errors } = await validator.validate({ ...structuredClone(document) });
  expect(errors ?? []).toEqual([]);
  expect(valid).toBe(true);
  expect(validator.version).toBe("3.1");
  for (const [, { $ref }] of walk(document)) {
    if (typeof $ref !== "string") continue;
    const found = $ref
      .slice(2)
      .split("/")
      .reduce<unknown>((at, name) => (at as Json | undefined)?.[name], document);
    expect(found, $ref).toBeDefined();
  }
});

test("each procedure of the router is in it, and no other", () => {
  const documented = Object.keys(document.paths).filter((path) => path.startsWith("/trpc/"));
  expect(documented.sort()).toEqual(procedures.map((path) => `/trpc/${path}`).sort());
});

test("each raw route is in it", () => {
  const documented = Object.entries(document.paths).flatMap(([path, item]) =>
    Object.keys(item).map((method) => `${method.toUpperCase()} ${path.replaceAll(/\{(\w+)\}/g, ":$1")}`),
  );
  expect(documented).toEqual(expect.arrayContaining(RAW_ROUTES.map(({ method, url }) => `${method} ${url}`)));
});

test("every field, parameter, header, response and operation says what it means", () => {
  const silent: string[] = [];
  for (const [way, value] of walk(document)) {
    const isField = way.at(-2) === "properties" && way.at(-3) !== "properties";
    const isOperation = way.length === 3 && way[0] === "paths";
    const isParameter = "in" in value && "name" in value;
    const isResponse = way.at(-2) === "responses";
    const isComponent = way.length === 3 && way[0] === "components";
    if (isOperation && !String(value["summary"]).endsWith(".")) silent.push(way.join(" "));
    if (!isField && !isParameter && !isResponse && !isComponent) continue;
    if (typeof value["description"] !== "string" || value["description"].length < 5)
      silent.push(way.join(" "));
  }
  expect(silent).toEqual([]);
});

test("operations have different ids, and a tag that the document describes", () => {
  const tags = (document.tags as { name: string }[]).map(({ name }) => name);
  const operations = Object.values(document.paths).flatMap((item) => Object.values(item) as Json[]);
  const ids = operations.map(({ operationId }) => operationId);
  expect(new Set(ids).size).toBe(ids.length);
  for (const { operationId, tags: own } of operations)
    expect(tags, String(operationId)).toContain((own as string[])[0]);
});

test("a reply with a field that is missing, of another type or not listed is a problem, and so is a reason that is not listed", () => {
  const documented = openDocumentedApi();
  const judge = (data: unknown) =>
    documented.judgeReply("/trpc/engineKeys.rotate", { status: 200, body: { result: { data } } });
  expect(judge({ apiKey: "k", generation: 2 })).toEqual([]);
  expect(judge({ apiKey: "k" })).toHaveLength(1);
  expect(judge({ apiKey: "k", generation: 2.5 })).toHaveLength(1);
  expect(judge({ apiKey: "k", generation: 2, more: 1 })).toHaveLength(1);
  expect(documented.judgeReply("/trpc/engineKeys.rotate", refuse("ENGINE_BUSY"))).toEqual([]);
  expect(documented.judgeReply("/trpc/engineKeys.rotate", refuse("TURN_IN_PROGRESS"))).toHaveLength(1);
  const cancel = { method: "POST", url: "/v1/turns/x/cancel?product=a" };
  const error = { reason: "TURN_NOT_FOUND", message: "no", requestId: "r" };
  expect(documented.judgeRaw(cancel, { status: 404, body: { error }, events: [] })).toEqual([]);
  expect(documented.judgeRaw(cancel, { status: 418, body: { error }, events: [] })).toHaveLength(1);
  const other = { ...error, reason: "ENGINE_BUSY" };
  expect(documented.judgeRaw(cancel, { status: 404, body: { error: other }, events: [] })).toHaveLength(1);
  const read = { method: "GET", url: "/v1/turns/x/events" };
  const events = [{ event: "enginehouse.end", data: "{}" }];
  expect(documented.judgeRaw(read, { status: 200, events })).not.toEqual([]);
});

test("the service serves the document without a key, with the version of the package", async () => {
  const response = await fetch(`${api.url}/v1/openapi.json`);
  expect(response.status).toBe(200);
  expect(response.headers.get("content-type")).toMatch(/^application\/json/);
  const served = (await response.json()) as typeof document;
  expect(served).toEqual(JSON.parse(JSON.stringify(document)));
  expect(served.info.version).toBe(packageJson.version);
  const etag = response.headers.get("etag") ?? "";
  const again = await fetch(`${api.url}/v1/openapi.json`, { headers: { "if-none-match": etag } });
  expect(again.status).toBe(304);
});

test("every other path of the document exists, and answers another method with 405", async () => {
  const others = Object.entries(document.paths).filter(([path]) => !path.startsWith("/trpc/"));
  for (const [path, item] of others) {
    for (const method of Object.keys(item)) {
      const { status } = await fetch(`${api.url}${path}`, { method: method.toUpperCase() });
      expect(status, `${method} ${path}`).not.toBe(404);
    }
    expect((await fetch(`${api.url}${path}`, { method: "DELETE" })).status, path).toBe(405);
  }
});

test("every procedure takes the input that the document shows, and its real reply is as documented", async () => {
  const documented = openDocumentedApi();
  const site = await openFireSite(api);
  api.behave("/rpc", answer(200, { result: { config: {}, turns: 1, hit_ratio: null } }));
  api.behave("/hitl/respond", answer(200, { status: "accepted" }));
  const reasons: string[] = [];
  for (const path of [...procedures.filter((one) => !ENDING.includes(one)), ...ENDING]) {
    const { key, input } = PROCEDURE_INPUTS[path]?.(site) ?? { key: "", input: {} };
    expect(documented.judgeInput(path, input), path).toEqual([]);
    expect(documented.judgeInput(path, { ...input, noSuchField: 1 }), path).not.toEqual([]);
    const call = { key, input: toNewCall(path, input) };
    if (path === "turns.execute" || path === "turns.events") {
      const messages = await collect(api.subscribe(path, call));
      expect(messages.at(-1), path).toMatchObject({ event: "return" });
    } else {
      const isQuery = "get" in (document.paths[`/trpc/${path}`] ?? {});
      const { status, body } = await (isQuery ? api.query(path, call) : api.mutate(path, call));
      expect(documented.judgeReply(`/trpc/${path}`, { status, body }), path).toEqual([]);
      if (status !== 200) reasons.push(`${path} ${body.error.data.reason}`);
    }
  }
  expect(reasons).toEqual(["fleet.acceptRuntime RUNTIME_UNCHANGED"]);
});
