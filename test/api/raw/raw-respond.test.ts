import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { answer } from "../../rpc/hostile-engine.ts";
import { openRaw, type Raw, toBody, write } from "./open-raw.ts";

let raw: Raw;
let turnId: string;
/** The bodies that the engine got. */
let got: string[] = [];
const toPath = (id = turnId) => `/v1/turns/${id}/respond`;
beforeAll(async () => {
  raw = await openRaw();
  raw.api.behave("/execute", (response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    write(response, "hitl_request", { request_id: "q" });
  });
  turnId = randomUUID();
  const headers = { "idempotency-key": turnId };
  const response = await raw.open("POST", "/v1/engines/ada/execute", { headers, body: toBody("a task") });
  await response.body?.cancel();
});
afterAll(async () => raw[Symbol.asyncDispose]());
beforeEach(() => {
  got = [];
  raw.api.behave("/hitl/respond", (response, request, body) => {
    got.push(body);
    answer(200, { status: "resolved", request_id: "q" })(response, request, body);
  });
});

test("an answer reaches the engine with the text of its content blocks, and its key is an idempotency key", async () => {
  const blocks = '[9007199254740993, {"a": 1.0}]';
  const question = '"request_id":"q"';
  const call = {
    headers: { "idempotency-key": '"answer-1"' },
    body: `{${question},"answer":"yes","feedback":"short","content_blocks":${blocks}}`,
  };
  for (let attempt = 0; attempt < 2; attempt += 1) {
    const reply = await raw.send("POST", toPath(), call);
    expect(reply).toMatchObject({ status: 200, body: { status: "resolved" } });
    expect(reply.headers.get("x-turn-id")).toBe(turnId);
  }
  const sent = `"answer":"yes","feedback":"short","content_blocks":${blocks}`;
  expect(got).toEqual([`{"task_id":"a task",${question},${sent}}`]);
});

test.each([
  ["no body", undefined, undefined],
  ["no object", "[1]", undefined],
  ["no answer", "{}", "answer"],
  ["content blocks that are no list", '{"answer":"a","content_blocks":{}}', "content_blocks"],
  ["a question that is no text", '{"answer":"a","request_id":{}}', "request_id"],
  ["our spelling of the question", '{"answer":"a","requestId":"q"}', "requestId"],
  ["our spelling", '{"answer":"a","contentBlocks":[]}', "contentBlocks"],
  ["a turn in the body", '{"answer":"a","turnId":"x"}', "turnId"],
  ["a product in the body", '{"answer":"a","product":"x"}', "product"],
])("%s is INVALID_INPUT, and names the field as the caller writes it", async (_what, body, path) => {
  const reply = await raw.send("POST", toPath(), body === undefined ? {} : { body });
  expect(reply).toMatchObject({ status: 400, body: { error: { reason: "INVALID_INPUT" } } });
  if (path !== undefined) expect(reply.body.error.issues).toMatchObject([{ path }]);
  expect(got).toEqual([]);
});

test("an empty idempotency key is INVALID_INPUT, and nothing is sent", async () => {
  const reply = await raw.send("POST", toPath(), {
    body: { answer: "yes" },
    headers: { "idempotency-key": "" },
  });
  expect(reply).toMatchObject({ status: 400, body: { error: { reason: "INVALID_INPUT" } } });
  expect(reply.body.error.message).toMatch(/^the header Idempotency-Key is empty/);
  expect(got).toEqual([]);
});

test("an unknown turn is 404, and an engine without the call is 422", async () => {
  const body = { answer: "yes" };
  expect((await raw.send("POST", toPath(randomUUID()), { body })).status).toBe(404);
  raw.api.behave("/hitl/respond", answer(404, { error: "NOT_FOUND", message: "no" }));
  const reply = await raw.send("POST", toPath(), { body });
  expect(reply).toMatchObject({ status: 422, body: { error: { reason: "NOT_SUPPORTED_BY_ENGINE" } } });
});
