import { EventEmitter, once } from "node:events";
import { createServer, type ServerResponse } from "node:http";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import {
  createClient,
  EnginehouseError,
  pipeEventStream,
  toErrorResponse,
  toEventStream,
  toPublicError,
  type EventStreamOptions,
  type Turn,
} from "../../client/index.ts";
import { REASONS } from "../../server/errors.ts";
import { END_REASONS } from "../../server/turns/model/turn-end.ts";
import {
  CONNECTED,
  type Exchange,
  openFakeService,
  RETURN,
  sendRefusal,
  sendResult,
  startStream,
  toEnd,
  toErrorShape,
  toEvent,
  toSse,
} from "./fake-service.ts";

const retry = { firstDelayMs: 1, maxDelayMs: 5, callForMs: 50, streamForMs: 50 };
const turnId = "0190d5d0-0000-7000-8000-000000000001";
const input = { turnId, userId: "ada", request: { message: "hello", taskId: "task" } };
const ended = toSse({ lastSeq: 4, events: [], end: toEnd(4) });
const three = toSse({ lastSeq: 3, events: [toEvent(1), toEvent(2), toEvent(3)] });
const idOf = (text: string) => [...text.matchAll(/^id: (\d+)$/gm)].map(([, id]) => Number(id));

const streamText =
  (text: string) =>
  ({ response }: Exchange) => {
    startStream(response);
    response.end(CONNECTED + text + RETURN);
  };

/** What a browser gets for a new turn. */
async function answer(handle: (exchange: Exchange) => void, options?: EventStreamOptions) {
  await using service = await openFakeService(handle);
  const client = createClient({ url: service.url, key: "secret", retry });
  const response = await toEventStream(client.execute(input), options);
  const text = await response.text();
  client.close();
  return { response, text, seen: service.seen };
}

test("each event has its number, its type and the text that the engine wrote; the end is the last event", async () => {
  const data = '{"big":9007199254740993,"text":"a\\nb\u2028","list":[1.0,-0,1e400]}';
  const batch = `{"turnId":"t","events":[{"seq":1,"at":"2026","type":"usage","data":${data}}]}`;
  const { response, text } = await answer(streamText(`data: ${batch}\nid: 1\n\n${ended}`));
  expect(response.status).toBe(200);
  expect(Object.fromEntries(response.headers)).toEqual({
    "content-type": "text/event-stream",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
    "x-turn-id": turnId,
  });
  const end =
    '{"status":"completed","reason":null,"message":null,"engineError":null,"lastSeq":4,"engineMayContinue":false}';
  expect(text).toBe(
    `retry: 1000\n\nid: 1\nevent: usage\ndata: ${data}\n\nid: 4\nevent: enginehouse.end\ndata: ${end}\n\n`,
  );
});

test("no event of an engine can be taken for one of EventSource or of ours, or add a line", async () => {
  const types = [
    "error",
    "open",
    "message",
    "enginehouse.end",
    "engine.error",
    "x\nid: 9\r\ndata: y",
    " enginehouse.end",
    "\tEnginehouse.end",
    "\ufeffenginehouse.end",
    "x.enginehouse.end",
  ];
  const events = types.map((type, index) => toEvent(index + 1, type, {}));
  const { text } = await answer(streamText(toSse({ lastSeq: 10, events }) + ended.replaceAll("4", "11")), {
    showEngineErrors: true,
  });
  expect([...text.matchAll(/^event: (.*)$/gm)].map(([, type]) => type)).toEqual([
    "engine.error",
    "engine.open",
    "message",
    "engine.enginehouse.end",
    "engine.engine.error",
    "x\ufffdid: 9\ufffd\ufffddata: y",
    "engine. enginehouse.end",
    "engine.\ufffdEnginehouse.end",
    "engine.\ufeffenginehouse.end",
    "x.enginehouse.end",
    "enginehouse.end",
  ]);
  expect(idOf(text)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
});

const leak = "http://10.0.0.7:9001 said: Error at /srv/engine.js";
const failed = toSse({
  lastSeq: 2,
  events: [toEvent(1, "error", { error: "LLM_DOWN", message: leak, details: { leak } })],
  end: toEnd(2, {
    status: "failed",
    reason: "ENGINE_ERROR",
    message: leak,
    engineError: { code: "LLM_DOWN", message: leak, details: { leak } },
  }),
});

test("an engine's own error is named by its code, and its words stay with the gateway", async () => {
  const { text } = await answer(streamText(failed));
  expect(text).toContain('event: engine.error\ndata: {"error":"LLM_DOWN"}\n');
  expect(text).toContain('"reason":"ENGINE_ERROR","message":"the assistant could not answer"');
  expect(text).toContain('"engineError":{"code":"LLM_DOWN",');
  expect(text).not.toContain("10.0.0.7");
});

test("an error code that is no name might be a sentence, so it is not passed on", async () => {
  const { text } = await answer(streamText(failed.replaceAll("LLM_DOWN", "no answer of 10.0.0.7")));
  expect(text).toContain('event: engine.error\ndata: {"error":"ENGINE_ERROR"}\n');
  expect(text).not.toContain("10.0.0.7");
});

test("a gateway can pass the engine's errors on as they are", async () => {
  const { text } = await answer(streamText(failed), { showEngineErrors: true });
  expect(text.match(/10\.0\.0\.7/g)).toHaveLength(5);
});

test("missing events are a gap, and the stream goes on behind it", async () => {
  const gap = { fromSeq: 1, toSeq: 5, reason: "retention" };
  const { text } = await answer(
    streamText(
      toSse({ lastSeq: 6, gap, events: [toEvent(6)] }) + toSse({ lastSeq: 7, events: [], end: toEnd(7) }),
    ),
  );
  expect(text).toContain(`id: 5\nevent: enginehouse.gap\ndata: ${JSON.stringify(gap)}\n\nid: 6\n`);
  expect(idOf(text)).toEqual([5, 6, 7]);
});

test("a cursor that the turn never gave is a gap, and the stream goes on from the newest event", async () => {
  const gap = { fromSeq: 4, toSeq: 9, reason: "unknown_cursor" };
  const { text } = await answer(streamText(three + toSse({ lastSeq: 3, gap, events: [] }) + ended));
  expect(idOf(text)).toEqual([1, 2, 3, 3, 4]);
});

const found = (exchange: Exchange, more: object) =>
  sendResult(exchange.response, { turnId, userId: "ada", end: null, ...more });

describe("a browser with a cursor", () => {
  test("gets what comes after the cursor, and nothing is started", async () => {
    const { response, text, seen } = await answer(
      (exchange) => {
        if (exchange.path === "turns.get") found(exchange, {});
        else streamText(three + ended)(exchange);
      },
      { lastEventId: "2" },
    );
    expect([response.status, idOf(text)]).toEqual([200, [3, 4]]);
    expect(seen.map(({ path, input: sent }) => [path, sent["lastEventId"]])).toEqual([
      ["turns.get", undefined],
      ["turns.events", "2"],
    ]);
  });

  test.each(["4", "5"])("gets 204 if it has the end: cursor %s", async (lastEventId) => {
    const { response, seen } = await answer((exchange) => found(exchange, { end: toEnd(4) }), {
      lastEventId,
    });
    expect([response.status, response.body]).toEqual([204, null]);
    expect(seen).toHaveLength(1);
  });

  test("gets the end if it lacks only that", async () => {
    const { response, text } = await answer(
      (exchange) => {
        if (exchange.path === "turns.get") found(exchange, { end: toEnd(4) });
        else streamText(ended)(exchange);
      },
      { lastEventId: "3" },
    );
    expect([response.status, idOf(text)]).toEqual([200, [4]]);
  });

  test("gets 404 for the turn of another user", async () => {
    const { response, text } = await answer((exchange) => found(exchange, { userId: "bob" }), {
      lastEventId: "2",
    });
    expect([response.status, JSON.parse(text)]).toMatchObject([404, { error: { reason: "TURN_NOT_FOUND" } }]);
    expect(text).not.toContain("bob");
  });

  test.each(["x", "-1", "1.5", "9".repeat(16), ["1", "2"]])(
    "gets 400 for a cursor that is none: %s",
    async (lastEventId) => {
      const { response, seen } = await answer(streamText(ended), { lastEventId });
      expect(response.status).toBe(400);
      expect(seen).toEqual([]);
    },
  );

  test.each([undefined, null, ""])("an absent cursor (%s) starts the turn", async (lastEventId) => {
    const { seen } = await answer(streamText(ended), { lastEventId });
    expect(seen.map(({ path }) => path)).toEqual(["turns.execute"]);
  });

  test("may have it from `after` as well", async () => {
    await using service = await openFakeService((exchange) => {
      if (exchange.path === "turns.get") found(exchange, {});
      else streamText(three + ended)(exchange);
    });
    const client = createClient({ url: service.url, key: "secret", retry });
    const turn = client.follow({ turnId, after: 1 });
    expect(turn.cursor).toBe(1);
    expect(idOf(await (await toEventStream(turn)).text())).toEqual([2, 3, 4]);
    expect(turn.cursor).toBe(4);
  });
});

test.each([
  ["INVALID_INPUT", 400],
  ["ENGINE_NOT_FOUND", 404],
  ["TURN_IN_PROGRESS", 409],
  ["IDEMPOTENCY_MISMATCH", 422],
  ["INVALID_KEY", 500],
  ["ENGINE_ERROR", 502],
  ["DRAINING", 503],
  ["A_REASON_OF_TOMORROW", 500],
])("a refusal with %s has the status %i and our words", async (reason, status) => {
  const more = { message: leak, engineError: { status: 500, code: "X", message: leak }, retryAfterMs: 1_500 };
  const { response, text } = await answer(({ response: refused }) => sendRefusal(refused, reason, more));
  expect([response.status, response.headers.get("content-type")]).toEqual([status, "application/json"]);
  expect(response.headers.get("retry-after")).toBe("2");
  expect(JSON.parse(text)).toEqual({
    error: { reason, message: expect.any(String), requestId: "request-1", retryAfterMs: 1_500 },
  });
  expect(text).not.toMatch(/10\.0\.0\.7|refused:/);
});

test("a service that cannot be reached is 503, without its address", async () => {
  const client = createClient({ url: "http://127.0.0.1:1", key: "secret", retry });
  const response = await toEventStream(client.execute(input));
  expect([response.status, await response.json()]).toEqual([
    503,
    { error: { reason: "CONNECTION_LOST", message: expect.not.stringContaining("127") } },
  ]);
});

test("every reason has a status and words for users", async () => {
  const ofClient = ["CONNECTION_LOST", "UNEXPECTED_ANSWER", "EVENTS_MISSING", "CLIENT_CLOSED"] as const;
  for (const reason of [...REASONS, ...END_REASONS, ...ofClient]) {
    const response = toErrorResponse(new EnginehouseError(reason, leak));
    expect(response.status, reason).toBeGreaterThanOrEqual(400);
    expect(await response.json()).toEqual({
      error: { reason, message: expect.stringMatching(/^[a-z ,:']+$/) },
    });
  }
});

test("a fault of the gateway itself is INTERNAL, and toEventStream throws it", async () => {
  expect(toPublicError(new TypeError(leak))).toEqual({
    reason: "INTERNAL",
    message: expect.not.stringContaining("10.0.0.7"),
  });
  await expect(toEventStream({} as Turn)).rejects.toThrow("this is no turn of the client");
});

test("a turn that is refused after its first byte says so in an event", async () => {
  let connections = 0;
  const { text } = await answer(({ response, path }) => {
    if (path === "turns.start") return sendResult(response, {});
    connections += 1;
    startStream(response);
    const refusal = `event: serialized-error\ndata: ${JSON.stringify(toErrorShape("TURN_NOT_FOUND"))}\n\n`;
    response.end(CONNECTED + (connections === 1 ? three : refusal));
  });
  expect(idOf(text)).toEqual([1, 2, 3]);
  const [, data = ""] = /event: enginehouse\.error\ndata: (.*)\n\n$/.exec(text) ?? [];
  expect(JSON.parse(data)).toMatchObject({ reason: "TURN_NOT_FOUND", requestId: "request-1" });
});

test("a browser that leaves ends the reading, and not the turn", async () => {
  const left = Promise.withResolvers<void>();
  await using service = await openFakeService(({ response }) => {
    response.once("close", () => left.resolve());
    startStream(response);
    response.write(CONNECTED + three);
  });
  const client = createClient({ url: service.url, key: "secret", retry });
  const response = await toEventStream(client.execute(input));
  const reader = response.body?.getReader();
  await reader?.read();
  await reader?.read();
  await reader?.cancel();
  await left.promise;
  expect(service.seen.map(({ path }) => path)).toEqual(["turns.execute"]);
});

test("a browser that leaves before its first byte, or takes nothing, leaves no connection open", async () => {
  let open = 0;
  await using service = await openFakeService(({ response }) => {
    open += 1;
    response.once("close", () => {
      open -= 1;
    });
    startStream(response);
    response.write(CONNECTED + three);
  });
  const client = createClient({ url: service.url, key: "secret", retry });
  const response = await toEventStream(client.execute(input));
  expect(open).toBe(1);
  await response.body?.cancel();
  await expect.poll(() => open).toBe(0);

  const leaving = new AbortController();
  await using slow = await openFakeService(({ response: slowResponse }) => startStream(slowResponse));
  const starting = toEventStream(createClient({ url: slow.url, key: "secret" }).execute(input), {
    signal: leaving.signal,
  });
  await expect.poll(() => slow.seen.length).toBe(1);
  leaving.abort();
  expect((await starting).status).toBe(499);
  const late = await toEventStream(client.execute(input), { signal: AbortSignal.abort() });
  expect(late.status).toBe(499);
});

test("a signal that aborts ends the stream without an error", async () => {
  await using service = await openFakeService(({ response }) => {
    startStream(response);
    response.write(CONNECTED + three);
  });
  const client = createClient({ url: service.url, key: "secret", retry });
  const leaving = new AbortController();
  const response = await toEventStream(client.execute(input), { signal: leaving.signal });
  const text = response.text();
  leaving.abort();
  expect(await text).not.toContain("enginehouse.end");
});

test("a slow browser stalls the service, and the gateway keeps a cursor instead of the turn", async () => {
  let sent = 0;
  const isStalled = Promise.withResolvers<void>();
  await using service = await openFakeService(async ({ response }) => {
    startStream(response);
    response.write(CONNECTED);
    for (let seq = 1; seq <= 500; seq += 1) {
      const event = toEvent(seq, "text_delta", { text: "x".repeat(64 * 1024) });
      sent = seq;
      if (response.write(toSse({ lastSeq: seq, events: [event] }))) continue;
      const stalled = setTimeout(() => isStalled.resolve(), 1_000);
      await once(response, "drain");
      clearTimeout(stalled);
    }
    response.end(toSse({ lastSeq: 501, events: [], end: toEnd(501) }) + RETURN);
  });
  const client = createClient({ url: service.url, key: "secret" });
  const response = await toEventStream(client.execute(input));
  const reader = response.body?.getReader();
  await reader?.read();
  await isStalled.promise;
  expect(sent).toBeLessThan(250);
  let text = "";
  const decoder = new TextDecoder();
  for (;;) {
    const { done, value } = (await reader?.read()) ?? { done: true, value: undefined };
    if (done) break;
    text += decoder.decode(value, { stream: true });
  }
  expect(idOf(text)).toEqual(Array.from({ length: 501 }, (_, index) => index + 1));
});

describe("silence", () => {
  beforeEach(() => {
    vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  test("brings a comment each 15 s, and none while the browser takes nothing", async () => {
    const go = Promise.withResolvers<void>();
    await using service = await openFakeService(async ({ response }) => {
      startStream(response);
      response.write(CONNECTED + toSse({ lastSeq: 0, events: [] }));
      await go.promise;
      response.end(ended.replaceAll("4", "1") + RETURN);
    });
    const client = createClient({ url: service.url, key: "secret" });
    const response = await toEventStream(client.execute(input));
    const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
    const read = async () => (await reader?.read())?.value;
    expect(await read()).toBe("retry: 1000\n\n");
    const first = read();
    // The stream asks the service for the next events in a later turn of the event loop.
    await expect.poll(() => vi.getTimerCount()).toBeGreaterThan(0);
    vi.advanceTimersByTime(15_000);
    expect(await first).toBe(":\n\n");
    const second = read();
    vi.advanceTimersByTime(15_000);
    expect(await second).toBe(":\n\n");
    go.resolve();
    expect(await read()).toContain("event: enginehouse.end");
    await read();
    expect(vi.getTimerCount()).toBe(0);
  });
});

/** A gateway on Node's http. */
async function openGateway(url: string) {
  const client = createClient({ url, key: "secret", retry });
  const finished = new EventEmitter();
  const responses: ServerResponse[] = [];
  const server = createServer((request, response) => {
    responses.push(response);
    void pipeEventStream(client.execute(input), { request, response }).then(() => finished.emit("finished"));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("the gateway has no port");
  return {
    url: `http://127.0.0.1:${address.port}/`,
    responses,
    finished,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      server.close();
      client.close();
    },
  };
}

describe("for Node's http", () => {
  test("the answer has the same status, headers and body", async () => {
    await using service = await openFakeService(({ path, response, ...rest }) => {
      if (path === "turns.get") return sendResult(response, { turnId, userId: "ada", end: toEnd(4) });
      return streamText(three + ended)({ path, response, ...rest });
    });
    await using gateway = await openGateway(service.url);
    const response = await fetch(gateway.url);
    expect([response.status, response.headers.get("x-turn-id")]).toEqual([200, turnId]);
    expect(response.headers.get("cache-control")).toBe("no-cache, no-transform");
    expect(idOf(await response.text())).toEqual([1, 2, 3, 4]);
    const resumed = await fetch(gateway.url, { headers: { "last-event-id": "2" } });
    expect(idOf(await resumed.text())).toEqual([3, 4]);
    const over = await fetch(gateway.url, { headers: { "last-event-id": "4" } });
    expect([over.status, await over.text()]).toEqual([204, ""]);
  });

  test("a refusal is JSON with its status", async () => {
    await using service = await openFakeService(({ response }) => sendRefusal(response, "ENGINE_NOT_FOUND"));
    await using gateway = await openGateway(service.url);
    const response = await fetch(gateway.url);
    expect([response.status, await response.json()]).toMatchObject([
      404,
      { error: { reason: "ENGINE_NOT_FOUND" } },
    ]);
  });

  test("a browser that leaves, or is slow and leaves, ends the handler", async () => {
    const big = { ...toEvent(1), data: { text: "x".repeat(8 * 1024 * 1024) } };
    await using service = await openFakeService(({ response }) => {
      startStream(response);
      response.write(CONNECTED + toSse({ lastSeq: 1, events: [big] }));
    });
    await using gateway = await openGateway(service.url);
    for (const takesAll of [true, false]) {
      const leaving = new AbortController();
      const response = await fetch(gateway.url, { signal: leaving.signal });
      const reader = response.body?.getReader();
      const taken = takesAll ? big.data.text.length : 0;
      for (let bytes = 0; bytes < taken;) bytes += (await reader?.read())?.value?.length ?? 0;
      const isBehind = () => gateway.responses.at(-1)?.writableNeedDrain;
      await expect.poll(isBehind).toBe(!takesAll);
      const finished = once(gateway.finished, "finished");
      leaving.abort();
      await finished;
    }
  });
});
