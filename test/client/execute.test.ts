import { randomUUID } from "node:crypto";
import { getEventListeners, once } from "node:events";
import { afterEach, expect, test } from "vitest";
import { createClient, EnginehouseError, findReason, type TurnEvent } from "../../client/index.ts";
import {
  CONNECTED,
  type FakeBatch,
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

const retry = { firstDelayMs: 1, maxDelayMs: 5 };
const input = { userId: "ada", request: { message: "hello", taskId: "task" } };

const unhandled: unknown[] = [];
const onUnhandled = (error: unknown) => unhandled.push(error);
process.on("unhandledRejection", onUnhandled);
afterEach(() => {
  expect(unhandled).toEqual([]);
});

/** Serves a complete turn at once. */
async function openTurnService(batches: FakeBatch[], more: { isOpen?: boolean } = {}) {
  return openFakeService(({ path, response }) => {
    if (path === "turns.start") return sendResult(response, {});
    if (path === "turns.cancel") return sendResult(response, { status: "cancelled" });
    startStream(response);
    response.write(CONNECTED + batches.map(toSse).join(""));
    if (more.isOpen !== true) response.end(RETURN);
  });
}

const three = { lastSeq: 3, events: [toEvent(1), toEvent(2, "usage", { words: 2 }), toEvent(3)] };

test("a turn has its id at once, and its events and text can be read any number of times", async () => {
  await using service = await openTurnService([three, { lastSeq: 4, events: [], end: toEnd(4) }]);
  const turn = createClient({ url: service.url, key: "secret", retry }).execute(input);
  expect(turn.turnId).toMatch(/^[0-9a-f-]{36}$/);
  const events: TurnEvent[] = [];
  for await (const event of turn) events.push(event);
  expect(events).toEqual(three.events);
  expect(await turn.text()).toBe("1 3 ");
  expect(await turn.end).toMatchObject({ status: "completed", lastSeq: 4 });
  expect(service.seen.filter(({ path }) => path === "turns.execute")).toMatchObject([
    { authorization: "Bearer secret", input: { ...input, turnId: turn.turnId } },
  ]);
});

test("no URL contains the key or the input", async () => {
  await using service = await openTurnService([{ lastSeq: 1, events: [], end: toEnd(1) }]);
  const client = createClient({ url: service.url, key: "secret", retry });
  await client.execute(input).text();
  await client.api.engines.get.query({ userId: "ada" }).catch(() => undefined);
  for await (const _batch of client.api.turns.events.subscribe({ turnId: randomUUID() })) break;
  expect(service.seen.map(({ url }) => url)).toEqual([
    "/trpc/turns.execute",
    "/trpc/engines.get",
    "/trpc/turns.events",
  ]);
  expect(service.seen.every(({ authorization }) => authorization === "Bearer secret")).toBe(true);
});

test("the client uses the turn id of the caller unchanged", async () => {
  await using service = await openTurnService([{ lastSeq: 1, events: [], end: toEnd(1) }]);
  const turnId = randomUUID();
  const turn = createClient({ url: service.url, key: "key", retry }).execute({ ...input, turnId });
  await turn.text();
  expect(turn.turnId).toBe(turnId);
  await turn.text();
  expect(service.seen.map(({ input: sent }) => sent["turnId"])).toEqual([turnId, turnId]);
});

test("the end arrives without an iteration", async () => {
  await using service = await openTurnService([three, { lastSeq: 4, events: [], end: toEnd(4) }]);
  const turn = createClient({ url: service.url, key: "key", retry }).execute(input);
  expect((await turn.end).status).toBe("completed");
});

test("`end` and an iteration share one stream", async () => {
  await using service = await openTurnService([three, { lastSeq: 4, events: [], end: toEnd(4) }]);
  const turn = createClient({ url: service.url, key: "key", retry }).execute(input);
  const [end, text] = await Promise.all([turn.end, turn.text()]);
  expect([end.status, text]).toEqual(["completed", "1 3 "]);
  expect(service.seen.map(({ path }) => path)).toEqual(["turns.execute"]);
});

test("the client reads on for `end` when the iteration stops early", async () => {
  let isFinished = false;
  await using service = await openFakeService(({ path, input: sent, response }) => {
    if (path === "turns.start") return sendResult(response, {});
    startStream(response);
    if (sent["lastEventId"] === undefined) response.write(CONNECTED + toSse(three));
    else {
      isFinished = true;
      response.end(CONNECTED + toSse({ lastSeq: 4, events: [], end: toEnd(4) }) + RETURN);
    }
  });
  const turn = createClient({ url: service.url, key: "key", retry }).execute(input);
  const { end } = turn;
  for await (const _event of turn) break;
  expect((await end).lastSeq).toBe(4);
  expect(isFinished).toBe(true);
});

test("a cancelled turn returns, and its end has the status cancelled", async () => {
  const cancelled = toEnd(4, { status: "cancelled", reason: "CANCELLED", engineMayContinue: true });
  await using service = await openTurnService([three, { lastSeq: 4, events: [], end: cancelled }]);
  const turn = createClient({ url: service.url, key: "key", retry }).execute(input);
  expect(await turn.text()).toBe("1 3 ");
  expect(await turn.end).toMatchObject({ status: "cancelled", reason: "CANCELLED" });
});

test.each(["failed", "interrupted"] as const)(
  "a turn that %s yields its events and then throws",
  async (status) => {
    const engineError = { code: "LLM_DOWN", message: "no model answers" };
    const end = toEnd(4, { status, reason: "ENGINE_ERROR", message: "the engine says no", engineError });
    await using service = await openTurnService([three, { lastSeq: 4, events: [], end }]);
    const turn = createClient({ url: service.url, key: "key", retry }).execute(input);
    const events: TurnEvent[] = [];
    const reading = (async () => {
      for await (const event of turn) events.push(event);
    })();
    await expect(reading).rejects.toBeInstanceOf(EnginehouseError);
    await expect(reading).rejects.toMatchObject({
      reason: "ENGINE_ERROR",
      message: "the engine says no",
      end: { status, lastSeq: 4 },
      engineError,
    });
    expect(events).toHaveLength(3);
    expect((await turn.end).status).toBe(status);
  },
);

test("missing events throw an error, and the end still arrives", async () => {
  const gap = { fromSeq: 4, toSeq: 9, reason: "retention" };
  const batches = [three, { lastSeq: 9, gap, events: [] }, { lastSeq: 10, events: [], end: toEnd(10) }];
  await using service = await openTurnService(batches);
  const turn = createClient({ url: service.url, key: "key", retry }).execute(input);
  await expect(turn.text()).rejects.toMatchObject({ reason: "EVENTS_MISSING", gap, end: undefined });
  expect((await turn.end).lastSeq).toBe(10);
});

test("an interrupted turn throws its end, not the gap of its reserved sequence numbers", async () => {
  const gap = { fromSeq: 4, toSeq: 9, reason: "lost" };
  const end = toEnd(10, { status: "interrupted", reason: "OWNER_LOST", message: "its replica is gone" });
  await using service = await openTurnService([three, { lastSeq: 10, gap, events: [], end }]);
  const turn = createClient({ url: service.url, key: "key", retry }).execute(input);
  await expect(turn.text()).rejects.toMatchObject({ reason: "OWNER_LOST", end: { lastSeq: 10 }, gap });
});

test("a cursor that the server does not know throws an error instead of reading for ever", async () => {
  let connections = 0;
  await using service = await openFakeService(({ path, response }) => {
    if (path === "turns.start") return sendResult(response, {});
    connections += 1;
    startStream(response);
    const gap = { fromSeq: 2, toSeq: 3, reason: "unknown_cursor" };
    response.end(CONNECTED + toSse(connections === 1 ? three : { lastSeq: 1, gap, events: [] }));
  });
  const turn = createClient({ url: service.url, key: "key", retry }).execute(input);
  await expect(turn.text()).rejects.toMatchObject({ reason: "EVENTS_MISSING" });
});

test("a refused start rejects the iteration and the end, with the server's details", async () => {
  await using service = await openFakeService(({ response }) => {
    sendRefusal(response, "ENGINE_NOT_FOUND", { issues: [{ path: "userId", message: "none" }] });
  });
  const turn = createClient({ url: service.url, key: "key", retry }).execute(input);
  const refusal = { reason: "ENGINE_NOT_FOUND", requestId: "request-1", end: undefined };
  await expect(turn.text()).rejects.toMatchObject(refusal);
  await expect(turn.end).rejects.toMatchObject({ ...refusal, issues: [{ path: "userId", message: "none" }] });
  expect(findReason(await turn.end.catch((error: unknown) => error))).toBe("ENGINE_NOT_FOUND");
  expect(service.seen).toHaveLength(1);
});

test("a refused turn without a reader causes no unhandled rejection", async () => {
  await using service = await openFakeService(({ response }) => sendRefusal(response, "INVALID_KEY"));
  createClient({ url: service.url, key: "key", retry }).execute(input);
  await expect.poll(() => service.seen).toHaveLength(1);
});

test("a start whose answer is lost is sent again with the same id before the turn is read", async () => {
  let starts = 0;
  await using service = await openFakeService(({ path, response }) => {
    if (path === "turns.execute") return void response.socket?.resetAndDestroy();
    if (path === "turns.start") {
      starts += 1;
      if (starts === 1) return void response.socket?.resetAndDestroy();
      if (starts === 2) return sendRefusal(response, "DRAINING");
      if (starts === 3) return sendRefusal(response, "RATE_LIMITED");
      if (starts === 4) return void response.writeHead(503).end("no backend");
      return sendResult(response, {});
    }
    startStream(response);
    response.end(CONNECTED + toSse({ lastSeq: 1, events: [], end: toEnd(1) }) + RETURN);
  });
  const turn = createClient({ url: service.url, key: "key", retry }).execute(input);
  await turn.text();
  expect(starts).toBe(5);
  expect(new Set(service.seen.map(({ input: sent }) => sent["turnId"]))).toEqual(new Set([turn.turnId]));
});

test.each(["RATE_LIMITED", "STREAM_LIMIT"])(
  "after %s the start is sent again after its time, and not at all if that is too far away",
  async (reason) => {
    const RETRY_AFTER_MS = 300;
    let refusedAt = 0;
    let startedAt = 0;
    let retryAfterMs = RETRY_AFTER_MS;
    await using service = await openFakeService(({ path, response }) => {
      if (path === "turns.execute") {
        refusedAt = performance.now();
        return sendRefusal(response, reason, { retryAfterMs });
      }
      if (path === "turns.start") {
        startedAt = performance.now();
        return sendResult(response, {});
      }
      startStream(response);
      response.end(CONNECTED + toSse({ lastSeq: 1, events: [], end: toEnd(1) }) + RETURN);
    });
    const client = createClient({ url: service.url, key: "key", retry });
    await client.execute(input).text();
    // Timers may fire a millisecond early.
    expect(startedAt - refusedAt).toBeGreaterThanOrEqual(RETRY_AFTER_MS - 2);
    retryAfterMs = 3_600_000;
    const before = service.seen.length;
    await expect(client.execute(input).text()).rejects.toMatchObject({ reason, retryAfterMs });
    expect(service.seen.slice(before).map(({ path }) => path)).toEqual(["turns.execute"]);
  },
);

test("leaving the loop closes the connection", async () => {
  const { promise: closed, resolve } = Promise.withResolvers<void>();
  await using service = await openFakeService(({ path, response }) => {
    if (path === "turns.start") return sendResult(response, {});
    response.once("close", resolve);
    startStream(response);
    response.write(CONNECTED + toSse(three));
  });
  const turn = createClient({ url: service.url, key: "key", retry }).execute(input);
  for await (const _event of turn) break;
  await closed;
});

test("`return` ends a reader that waits for an event", async () => {
  await using service = await openTurnService([three], { isOpen: true });
  const turn = createClient({ url: service.url, key: "key", retry }).execute(input);
  const events = turn[Symbol.asyncIterator]();
  for (const seq of [1, 2, 3]) expect((await events.next()).value).toMatchObject({ seq });
  const waiting = events.next();
  await events.return?.();
  expect((await waiting).done).toBe(true);
});

test("`return` ends a reader while the engine boots", async () => {
  const requested = Promise.withResolvers<void>();
  await using service = await openFakeService(({ response }) => {
    startStream(response);
    response.write(CONNECTED, () => requested.resolve());
  });
  const client = createClient({ url: service.url, key: "key", retry });
  const events = client.execute(input)[Symbol.asyncIterator]();
  const waiting = events.next();
  await requested.promise;
  await events.return?.();
  expect((await waiting).done).toBe(true);
  client.close();
});

test("an abort rejects the end with its reason, even if the turn has no reader and has not started", async () => {
  const requested = Promise.withResolvers<void>();
  await using service = await openFakeService(() => requested.resolve());
  const leaving = new AbortController();
  const client = createClient({ url: service.url, key: "key", retry });
  const turn = client.execute({ ...input, signal: leaving.signal });
  await requested.promise;
  leaving.abort(new Error("enough"));
  await expect(turn.end).rejects.toThrow("enough");
});

test("an aborted signal stops the reading with its reason, and does not cancel the turn", async () => {
  await using service = await openTurnService([three], { isOpen: true });
  const leaving = new AbortController();
  const turn = createClient({ url: service.url, key: "key", retry }).execute({
    ...input,
    signal: leaving.signal,
  });
  const reading = (async () => {
    for await (const event of turn) if (event.seq === 3) leaving.abort(new Error("enough"));
  })();
  await expect(reading).rejects.toThrow("enough");
  await expect(turn.end).rejects.toThrow("enough");
  expect(service.seen.map(({ path }) => path)).not.toContain("turns.cancel");
});

test("turns that share a signal leave no listener on it, however they end", async () => {
  await using service = await openTurnService([three, { lastSeq: 4, events: [], end: toEnd(4) }]);
  await using refusing = await openFakeService(({ response }) => sendRefusal(response, "ENGINE_NOT_FOUND"));
  const { signal } = new AbortController();
  const listeners = () => getEventListeners(signal, "abort");
  const client = createClient({ url: service.url, key: "key", retry });
  const turns = Array.from({ length: 20 }, () => client.execute({ ...input, signal }));
  const reading = turns.map(async (turn, index) => {
    if (index % 3 === 0) await turn.text();
    else if (index % 3 === 1) await turn.end;
    else for await (const _event of turn) break;
  });
  expect(listeners().length).toBeLessThanOrEqual(1);
  await Promise.all(reading);
  await expect.poll(listeners).toEqual([]);
  const refused = createClient({ url: refusing.url, key: "key", retry }).execute({ ...input, signal });
  await expect(refused.text()).rejects.toMatchObject({ reason: "ENGINE_NOT_FOUND" });
  await expect.poll(listeners).toEqual([]);
  // This turn has no reader.
  client.execute({ ...input, signal });
  await expect.poll(() => service.seen.filter(({ path }) => path === "turns.start")).toHaveLength(1);
  await expect.poll(listeners).toEqual([]);
});

test("a signal that has already aborted starts no turn", async () => {
  await using service = await openTurnService([three]);
  const signal = AbortSignal.abort(new Error("too late"));
  const turn = createClient({ url: service.url, key: "key", retry }).execute({ ...input, signal });
  await expect(turn.text()).rejects.toThrow("too late");
  expect(service.seen).toEqual([]);
});

test.each([
  ["refused", { path: "turns.execute", answer: "DRAINING" }],
  ["refused in the stream", { path: "stream", answer: "DATABASE_UNAVAILABLE" }],
  ["closed without an answer", { path: "stream", answer: "" }],
] as const)("an execute that is %s is replaced by a start, and then read", async (_how, { path, answer }) => {
  await using service = await openFakeService((exchange) => {
    const { response } = exchange;
    if (exchange.path === "turns.start") return sendResult(response, {});
    if (exchange.path === path) return sendRefusal(response, answer);
    startStream(response);
    if (exchange.path === "turns.events") {
      return void response.end(CONNECTED + toSse({ lastSeq: 1, events: [], end: toEnd(1) }) + RETURN);
    }
    const refusal = `event: serialized-error\ndata: ${JSON.stringify(toErrorShape(answer))}\n\n\n`;
    response.end(answer === "" ? CONNECTED : CONNECTED + refusal);
  });
  const turn = createClient({ url: service.url, key: "key", retry }).execute(input);
  await turn.text();
  expect(service.seen.map((seen) => seen.path)).toEqual(["turns.execute", "turns.start", "turns.events"]);
  expect(new Set(service.seen.map((seen) => seen.input["turnId"]))).toEqual(new Set([turn.turnId]));
});

test("a turn that is not read at once is started by its own request, and read later", async () => {
  await using service = await openTurnService([three, { lastSeq: 4, events: [], end: toEnd(4) }]);
  const turn = createClient({ url: service.url, key: "key", retry }).execute(input);
  await expect.poll(() => service.seen.map(({ path }) => path)).toEqual(["turns.start"]);
  expect(await turn.text()).toBe("1 3 ");
  expect(service.seen.map(({ path }) => path)).toEqual(["turns.start", "turns.events"]);
});

test("closing the client ends its turns, calls and subscriptions", async () => {
  await using service = await openFakeService(({ path, response }) => {
    if (path === "turns.start") return sendResult(response, {});
    startStream(response);
    response.write(CONNECTED);
  });
  const client = createClient({ url: service.url, key: "key", retry });
  const reading = client.execute(input).text();
  const calling = client.api.engines.get.query({ userId: "ada" });
  const following = (async () => {
    for await (const _batch of client.api.turns.events.subscribe({ turnId: randomUUID() }));
  })();
  await expect.poll(() => service.seen).toHaveLength(3);
  client.close();
  await expect(reading).rejects.toMatchObject({ reason: "CLIENT_CLOSED" });
  expect(findReason(await calling.catch((error: unknown) => error))).toBe("CLIENT_CLOSED");
  await following.catch(() => undefined);
  const late: unknown = await client.api.health.live.query().catch((error: unknown) => error);
  expect(findReason(late)).toBe("CLIENT_CLOSED");
  await expect(client.execute(input).cancel()).rejects.toMatchObject({ reason: "CLIENT_CLOSED" });
  await expect(client.execute(input).text()).rejects.toMatchObject({ reason: "CLIENT_CLOSED" });
});

test("cancel reaches the service, even when it overtakes the start", async () => {
  let cancels = 0;
  const { promise: requested, resolve } = Promise.withResolvers<void>();
  await using service = await openFakeService(async ({ path, response }) => {
    if (path === "turns.cancel") {
      cancels += 1;
      resolve();
      return cancels === 1
        ? sendRefusal(response, "TURN_NOT_FOUND")
        : sendResult(response, { status: "cancelled" });
    }
    await requested;
    sendResult(response, {});
  });
  const turn = createClient({ url: service.url, key: "key", retry }).execute(input);
  expect(await turn.cancel()).toMatchObject({ status: "cancelled" });
  expect(service.seen.at(-1)?.input).toEqual({ turnId: turn.turnId });
});

test("a reader that stalls stalls the server, instead of buffering events", async () => {
  let sentBytes = 0;
  let isStalled = false;
  const big = "x".repeat(64 * 1024);
  await using service = await openFakeService(async ({ path, response }) => {
    if (path === "turns.start") return sendResult(response, {});
    startStream(response);
    const left = new AbortController();
    response.once("close", () => left.abort());
    response.write(CONNECTED);
    for (let seq = 1; seq <= 1_000 && !response.destroyed; seq += 1) {
      const batch = toSse({ lastSeq: seq, events: [toEvent(seq, "text_delta", { text: big })] });
      sentBytes += batch.length;
      if (response.write(batch)) continue;
      isStalled = true;
      await once(response, "drain", { signal: left.signal });
      isStalled = false;
    }
    response.end(toSse({ lastSeq: 1_001, events: [], end: toEnd(1_001) }) + RETURN);
  });
  const turn = createClient({ url: service.url, key: "key", retry }).execute(input);
  const events = turn[Symbol.asyncIterator]();
  await events.next();
  let before = -1;
  await expect
    .poll(
      () => {
        const isQuiet = isStalled && sentBytes === before;
        before = sentBytes;
        return isQuiet;
      },
      { interval: 200 },
    )
    .toBe(true);
  expect(sentBytes).toBeLessThan(32 * 1024 * 1024);
  let count = 1;
  for (let next = await events.next(); next.done !== true; next = await events.next()) count += 1;
  expect(count).toBe(1_000);
});
