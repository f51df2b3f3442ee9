import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { ADMIN_KEY } from "../open-api.ts";
import { openRaw, quiet, type Raw, type RawEvent, threeTokens, toBody } from "./open-raw.ts";

let raw: Raw;
beforeAll(async () => {
  raw = await openRaw();
});
afterAll(async () => raw[Symbol.asyncDispose]());
beforeEach(() => raw.api.behave("/execute", threeTokens));

const idsOf = (events: RawEvent[]) => events.map(({ id }) => id);
const idempotencyKey = (turnId: string) => ({ "idempotency-key": turnId });

/** Starts a turn and reads it to its end. */
async function complete(): Promise<string> {
  const { headers } = await raw.execute({ body: toBody(randomUUID()) });
  return headers.get("x-turn-id") ?? "";
}

async function startQuiet(): Promise<string> {
  raw.api.behave("/execute", quiet);
  const turnId = randomUUID();
  const input = { turnId, userId: "ada", request: { message: "hi", taskId: turnId } };
  await raw.api.mutate("turns.start", { key: raw.key, input });
  return turnId;
}

/** The text of a response as it grows. */
async function readPart(response: Response, isEnough: (text: string) => boolean): Promise<string> {
  let text = "";
  for await (const part of response.body?.pipeThrough(new TextDecoderStream()) ?? []) {
    text += part;
    if (isEnough(text)) break;
  }
  return text;
}

describe("POST /v1/engines/{userId}/execute", () => {
  test("starts a turn and streams it to its end, in one response", async () => {
    const reply = await raw.execute({ body: toBody("first") });
    expect(reply.status).toBe(200);
    const turnId = reply.headers.get("x-turn-id");
    expect(turnId).toMatch(/^[0-9a-f-]{36}$/);
    expect(idsOf(reply.events)).toEqual(["1", "2", "3", "4", "5", "6"]);
    expect(reply.events.slice(0, 2)).toEqual([
      { id: "1", event: "thread_lifecycle", data: '{"phase":"started"}' },
      { id: "2", event: "text_delta", data: '{"text":"one"}' },
    ]);
    const { event, data } = reply.events.at(-1) ?? {};
    expect(event).toBe("enginehouse.end");
    expect(JSON.parse(data ?? "")).toEqual({
      status: "completed",
      reason: null,
      message: null,
      engineError: null,
      lastSeq: 6,
      engineMayContinue: false,
    });
  });

  test("has the headers that keep proxies from collecting, storing or changing the stream", async () => {
    const { headers } = await raw.execute({
      body: toBody("headers"),
      headers: { "accept-encoding": "gzip" },
    });
    expect(headers.get("content-type")).toBe("text/event-stream");
    expect(headers.get("cache-control")).toBe("no-cache, no-transform");
    expect(headers.get("x-accel-buffering")).toBe("no");
    expect(headers.get("content-encoding")).toBeNull();
    expect(headers.get("x-request-id")).toMatch(/^[\w-]+$/);
  });

  test("with a cursor, reads no turn of another user, live or ended", async () => {
    const ended = await complete();
    for (const turnId of [ended, await startQuiet()]) {
      const headers = { ...idempotencyKey(turnId), "last-event-id": "1" };
      const reply = await raw.execute({ user: "bob", headers, body: toBody("any") });
      expect(reply).toMatchObject({ status: 404, body: { error: { reason: "TURN_NOT_FOUND" } } });
      expect(reply.text).not.toContain("ada");
    }
    const headers = { ...idempotencyKey(ended), "last-event-id": "5" };
    expect(idsOf((await raw.execute({ headers, body: toBody("any") })).events)).toEqual(["6"]);
  });

  test("gives the engine the body as it was sent", async () => {
    const got: string[] = [];
    raw.api.behave("/execute", (response, request, body) => {
      got.push(body);
      threeTokens(response, request, body);
    });
    const body =
      '{"message":"m","task_id":"exact","edit_message_id":"e","retry_message_id":"r","direct":true,' +
      '"media":[1e400],"n":9007199254740993,"f":1.0,"own":{"task_id":-0, "x":"\\u00e9"},"taskid":null}';
    const turnId = randomUUID();
    await raw.execute({ body, headers: idempotencyKey(turnId) });
    expect(got).toEqual([body]);
    // The same turn through tRPC, whose fields have our names.
    const request = body
      .replace('"task_id":"exact"', '"taskId":"exact"')
      .replace("edit_message_id", "editMessageId")
      .replace("retry_message_id", "retryMessageId");
    const input = `{"turnId":"${turnId}","userId":"ada","request":${request}}`;
    const start = async (text: string) =>
      raw.send("POST", "/trpc/turns.start", { body: text, headers: { "content-type": "application/json" } });
    expect((await start(input)).body.result.data).toMatchObject({ turnId, created: false });
    expect((await start(input.replace("1.0", "1"))).text).toContain("IDEMPOTENCY_MISMATCH");
    expect(got).toHaveLength(1);
  });

  test("attaches to the turn of its Idempotency-Key, also to one that tRPC has started", async () => {
    let calls = 0;
    raw.api.behave("/execute", (...call) => {
      calls += 1;
      threeTokens(...call);
    });
    const turnId = randomUUID();
    const headers = idempotencyKey(turnId.toUpperCase());
    const [first, second] = await Promise.all([
      raw.execute({ body: toBody("twice"), headers }),
      raw.execute({ body: toBody("twice"), headers: idempotencyKey(`"${turnId}"`) }),
    ]);
    for (const reply of [first, second]) {
      expect(reply.headers.get("x-turn-id")).toBe(turnId);
      expect(idsOf(reply.events)).toEqual(["1", "2", "3", "4", "5", "6"]);
    }
    expect(calls).toBe(1);
    const other = await raw.execute({ body: toBody("twice", { direct: true }), headers });
    expect([other.status, other.body.error.reason]).toEqual([422, "IDEMPOTENCY_MISMATCH"]);
    expect(other.headers.get("x-turn-id")).toBe(turnId);

    const byTrpc = randomUUID();
    const input = { turnId: byTrpc, userId: "ada", request: { message: "hi", taskId: "joined" } };
    await raw.api.mutate("turns.start", { key: raw.key, input });
    const joined = await raw.execute({ body: toBody("joined"), headers: idempotencyKey(byTrpc) });
    expect(idsOf(joined.events)).toEqual(["1", "2", "3", "4", "5", "6"]);
    expect(calls).toBe(2);
  });

  test("starts nothing for a reader that has a cursor, and reads on after it", async () => {
    let calls = 0;
    raw.api.behave("/execute", (...call) => {
      calls += 1;
      threeTokens(...call);
    });
    const turnId = randomUUID();
    const resume = { ...idempotencyKey(turnId), "last-event-id": "4" };
    const absent = await raw.execute({ body: toBody("resumed"), headers: resume });
    expect([absent.status, absent.body.error.reason, calls]).toEqual([404, "TURN_NOT_FOUND", 0]);
    await raw.execute({ body: toBody("resumed"), headers: idempotencyKey(turnId) });
    const rest = await raw.execute({ body: toBody("resumed"), headers: resume });
    expect([idsOf(rest.events), calls]).toEqual([["5", "6"], 1]);
  });

  test("takes the generation and, from an operator, the product as query parameters", async () => {
    const path = "/v1/engines/ada/execute";
    const body = toBody("query");
    const generation = await raw.send("POST", `${path}?expectGeneration=1`, { body });
    expect(generation.status).toBe(200);
    const other = await raw.send("POST", `${path}?expectGeneration=7`, { body });
    expect([other.status, other.body.error.reason]).toEqual([409, "GENERATION_CHANGED"]);
    const operator = await raw.send("POST", `${path}?product=raw`, { key: ADMIN_KEY, body });
    expect(operator.status).toBe(200);
    expect((await raw.send("POST", path, { key: ADMIN_KEY, body })).status).toBe(400);
  });

  test("sends its head when the engine has taken the turn, before the first event", async () => {
    raw.api.behave("/execute", (response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.flushHeaders();
    });
    const response = await raw.open("POST", "/v1/engines/ada/execute", { body: toBody("silent") });
    expect(response.status).toBe(200);
    expect(await readPart(response, (text) => text !== "")).toBe(":\n\n");
    const turnId = response.headers.get("x-turn-id");
    await raw.send("POST", `/v1/turns/${turnId}/cancel`);
  });

  test("decodes the user's id in the path", async () => {
    const userId = "a/b ü?";
    await raw.api.mutate("engines.provision", { key: raw.key, input: { userId } });
    const reply = await raw.execute({ user: encodeURIComponent(userId), body: toBody("decoded") });
    expect(reply.status).toBe(200);
    const { body } = await raw.api.query("turns.list", { key: raw.key, input: { userId } });
    expect(body.result.data.items).toHaveLength(1);
  });
});

describe("GET /v1/turns/{turnId}/events", () => {
  test("resumes after the Last-Event-ID, which is a header or in the query", async () => {
    const turnId = await complete();
    expect(idsOf((await raw.events(turnId)).events)).toEqual(["1", "2", "3", "4", "5", "6"]);
    const byHeader = await raw.events(turnId, { headers: { "last-event-id": "4" } });
    expect(idsOf(byHeader.events)).toEqual(["5", "6"]);
    expect(byHeader.headers.get("x-turn-id")).toBe(turnId);
    const byQuery = await raw.send("GET", `/v1/turns/${turnId}/events?lastEventId=3`);
    expect(idsOf(byQuery.events)).toEqual(["4", "5", "6"]);
    const both = await raw.send("GET", `/v1/turns/${turnId}/events?lastEventId=3`, {
      headers: { "last-event-id": "5" },
    });
    expect(idsOf(both.events)).toEqual(["6"]);
    const empty = await raw.send("GET", `/v1/turns/${turnId}/events?lastEventId=`);
    expect(idsOf(empty.events)).toHaveLength(6);
  });

  test("answers 204 to a reader that has the end", async () => {
    const turnId = await complete();
    for (const id of ["6", "7", "999999999999999"]) {
      const reply = await raw.events(turnId, { headers: { "last-event-id": id } });
      expect([reply.status, reply.text]).toEqual([204, ""]);
      expect(reply.headers.get("x-turn-id")).toBe(turnId);
    }
  });

  test("sends its head at once for a turn that is quiet, and the events as they come", async () => {
    const turnId = await startQuiet();
    const response = await raw.open("GET", `/v1/turns/${turnId}/events`, {
      headers: { "last-event-id": "1" },
    });
    expect(response.status).toBe(200);
    const read = readPart(response, (text) => text.includes("enginehouse.end"));
    const cancelled = await raw.send("POST", `/v1/turns/${turnId}/cancel`);
    expect(cancelled.status).toBe(200);
    expect(cancelled.body).toMatchObject({ turnId, status: "cancelled", end: { reason: "CANCELLED" } });
    expect(await read).toMatch(/^:\n\nid: 2\nevent: enginehouse\.end\ndata: \{"status":"cancelled".*\}\n\n$/);
    expect((await raw.send("POST", `/v1/turns/${turnId}/cancel`, { body: {} })).body).toEqual(cancelled.body);
  });

  test("sends a gap for a cursor that the turn never gave out, and then what follows it", async () => {
    const turnId = await startQuiet();
    const response = await raw.open("GET", `/v1/turns/${turnId}/events?lastEventId=100000`);
    const read = readPart(response, (text) => text.includes("enginehouse.end"));
    await raw.send("POST", `/v1/turns/${turnId}/cancel`);
    const text = await read;
    expect(text).toContain(
      'id: 1\nevent: enginehouse.gap\ndata: {"fromSeq":2,"toSeq":100000,"reason":"unknown_cursor"}\n\n',
    );
    expect(text).toContain("id: 2\nevent: enginehouse.end\n");
  });

  test("goes on with the turn when its reader leaves", async () => {
    const turnId = await startQuiet();
    const response = await raw.open("GET", `/v1/turns/${turnId}/events`);
    await readPart(response, (text) => text.includes("id: 1\n"));
    const { body } = await raw.api.query("turns.get", { key: raw.key, input: { turnId } });
    expect(body.result.data.status).toBe("streaming");
    await raw.send("POST", `/v1/turns/${turnId}/cancel`);
  });
});

describe("an open raw stream", () => {
  test("ends with KEY_REVOKED within a second of a revocation, and the turn continues", async () => {
    const { keyId, apiKey } = await raw.api.issue(raw.productId);
    const turnId = await startQuiet();
    const response = await raw.open("GET", `/v1/turns/${turnId}/events`, { key: apiKey });
    const read = readPart(response, (text) => text.includes("enginehouse.end"));
    await raw.api.mutate("platformKeys.revoke", { key: ADMIN_KEY, input: { keyId } });
    // The id is the reader's own cursor: with another key it resumes there.
    expect(await read).toMatch(/id: 1\nevent: enginehouse\.end\ndata: .*"reason":"KEY_REVOKED"/);
    const { body } = await raw.api.query("turns.get", { key: raw.key, input: { turnId } });
    expect(body.result.data.status).toBe("streaming");
    await raw.send("POST", `/v1/turns/${turnId}/cancel`);
  });

  test("ends without an end event when the replica closes, so that its reader comes back", async () => {
    await using leaving = await openRaw();
    leaving.api.behave("/execute", quiet);
    const response = await leaving.open("POST", "/v1/engines/ada/execute", { body: toBody("left") });
    const reading = readPart(response, () => false);
    await expect.poll(() => leaving.api.ctx.turns.list()[0]?.lastSeq).toBe(1);
    leaving.api.ctx.turns.handOver();
    const text = await reading;
    expect(text).toContain("id: 1\n");
    expect(text).not.toContain("enginehouse.end");
    // A reader that comes to a replica in this state gets an empty stream, after which an EventSource comes back.
    const late = await leaving.events(response.headers.get("x-turn-id") ?? "");
    expect([late.status, late.headers.get("content-type"), late.text]).toEqual([
      200,
      "text/event-stream",
      "",
    ]);
  });
});

test("the log line of a request has the turn's id", async () => {
  const turnId = await complete();
  await expect
    .poll(() => raw.api.logged.find((line) => line.includes(turnId)))
    .toContain('"path":"/v1/engines/ada/execute","status":200');
});
