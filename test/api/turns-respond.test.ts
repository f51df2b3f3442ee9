import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { answer, behaviours } from "../rpc/hostile-engine.ts";
import { ADMIN_KEY, type Api, openApi } from "./open-api.ts";

let api: Api;
let productId: string;
let key: string;
let turnId: string;
/** The bodies that the engine got. */
let got: string[] = [];
beforeAll(async () => {
  api = await openApi();
  ({ productId, apiKey: key } = await api.register("answering"));
  await api.mutate("engines.provision", { key, input: { userId: "ada" } });
  api.behave("/execute", (response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.write('event: hitl_request\ndata: {"request_id":"q"}\n\n');
  });
  turnId = randomUUID();
  const input = { turnId, userId: "ada", request: { message: "hi", taskId: "a task" } };
  await api.mutate("turns.start", { key, input });
});
afterAll(async () => {
  await api[Symbol.asyncDispose]();
});
beforeEach(() => {
  got = [];
  api.behave("/hitl/respond", (response, request, body) => {
    got.push(body);
    answer(200, { status: "resolved", request_id: "q" })(response, request, body);
  });
});

const respond = async (input: object, by = key) =>
  (await api.mutate("turns.respond", { key: by, input })).body;

test("the engine gets numbers and texts of contentBlocks as they were written", async () => {
  const blocks = '[9007199254740993, 1e400, {"a": 1.0, "twice": 1, "twice": 2}, "\\u00e9\\ud800"]';
  const init = {
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
    body: `{"turnId":"${turnId}","answer":"yes","contentBlocks":${blocks}}`,
  };
  const response = await fetch(`${api.url}/trpc/turns.respond`, init);
  expect(await response.json()).toEqual({ result: { data: { status: "resolved" } } });
  expect(got).toEqual([`{"task_id":"a task","answer":"yes","content_blocks":${blocks}}`]);
});

describe("with an idempotency key", () => {
  test("a repeated answer gets the first reply, and is not sent again", async () => {
    const input = { turnId, answer: "yes", idempotencyKey: "once" };
    const first = await respond(input);
    expect(first.result.data).toEqual({ status: "resolved" });
    expect(await respond(input)).toEqual(first);
    expect((await respond({ ...input, answer: "no" })).error.data.reason).toBe("IDEMPOTENCY_MISMATCH");
    expect(got).toHaveLength(1);
  });

  test.each([
    ["an error envelope with 500", answer(500, { error: "BOOM", message: "no" })],
    ["200 with HTML", behaviours.html],
    ["307", answer(307, {})],
  ])("%s says that the effect is unknown, and the answer is not sent again", async (how, behaviour) => {
    let sent = 0;
    api.behave("/hitl/respond", (...exchange) => {
      sent += 1;
      behaviour(...exchange);
    });
    const input = { turnId, answer: "yes", idempotencyKey: how };
    const first = await respond(input);
    expect(first.error.data.reason).toBe("ENGINE_ERROR");
    expect(first.error.message).toContain("effect is unknown");
    expect((await respond(input)).error.data.reason).toBe("OUTCOME_UNKNOWN");
    expect(sent).toBe(1);
  });

  test("an answer that may have arrived is OUTCOME_UNKNOWN each time, and is not sent again", async () => {
    let sent = 0;
    api.behave("/hitl/respond", (response) => {
      sent += 1;
      behaviours.crashes(response);
    });
    const input = { turnId, answer: "yes", idempotencyKey: "lost" };
    for (let call = 0; call < 2; call += 1) {
      expect((await respond(input)).error.data).toMatchObject({ reason: "OUTCOME_UNKNOWN", httpStatus: 409 });
    }
    expect(sent).toBe(1);
  });
});

test("an operator answers for a product, and a key without the scope turns does not", async () => {
  const input = { userId: "ada", taskId: "a task", answer: "yes" };
  expect((await respond({ ...input, product: "answering" }, ADMIN_KEY)).result.data.status).toBe("resolved");
  const { apiKey: reader } = await api.issue(productId, { scopes: ["read"] });
  expect((await respond(input, reader)).error.data.reason).toBe("SCOPE_MISSING");
  expect(got).toHaveLength(1);
});

test("a turn of another product is absent", async () => {
  const { apiKey: stranger } = await api.register("strange");
  const absent = await respond({ turnId: randomUUID(), answer: "yes" }, stranger);
  const foreign = await respond({ turnId, answer: "yes" }, stranger);
  expect(foreign.error.message).toBe(absent.error.message);
  expect(foreign.error.data.reason).toBe("TURN_NOT_FOUND");
  const user = { userId: "ada", taskId: "a task", answer: "yes" };
  expect((await respond(user, stranger)).error.data.reason).toBe("ENGINE_NOT_FOUND");
  expect(got).toEqual([]);
});

test.each([
  ["no address", {}, "turnId"],
  ["a user without a task", { userId: "ada" }, "turnId"],
  ["two addresses", { turnId: randomUUID(), userId: "ada", taskId: "t" }, "turnId"],
  ["an answer that is no text", { turnId: randomUUID(), answer: 1 }, "answer"],
  ["content blocks that are no list", { turnId: randomUUID(), contentBlocks: {} }, "contentBlocks"],
  ["an unknown field", { turnId: randomUUID(), task_id: "t" }, ""],
])("%s is INVALID_INPUT", async (_what, input, path) => {
  const { error } = await respond({ answer: "yes", ...input });
  expect(error.data).toMatchObject({ reason: "INVALID_INPUT", issues: [{ path }] });
  expect(got).toEqual([]);
});

test("an answer is accepted while the replica drains", async () => {
  api.ctx.drain.begin();
  expect((await respond({ turnId, answer: "yes" })).result.data.status).toBe("resolved");
});
