import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { connect } from "node:net";
import { request, type IncomingMessage, type ServerResponse } from "node:http";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { createTRPCClient, httpLink, httpSubscriptionLink, TRPCClientError } from "@trpc/client";
import { initTRPC, tracked } from "@trpc/server";
import { resolveResponse } from "@trpc/server/http";
import { EventSource } from "eventsource";
import { createParser, type EventSourceMessage } from "eventsource-parser";
import type { AppRouter } from "../../../server/api/routers/router.ts";
import type { LiveTurn } from "../../../server/turns/model/live-turn.ts";
import type { Behaviour } from "../../rpc/hostile-engine.ts";
import { ADMIN_KEY, type Api, openApi, type StreamItem } from "../open-api.ts";

let api: Api;
let productId: string;
let key: string;
beforeAll(async () => {
  api = await openApi();
  ({ productId, apiKey: key } = await api.register("streaming"));
  await api.mutate("engines.provision", { key, input: { userId: "ada" } });
});
afterAll(async () => {
  await api[Symbol.asyncDispose]();
});

function write(response: ServerResponse, type: string, data: object): void {
  response.write(`event: ${type}\ndata: ${JSON.stringify(data)}\n\n`);
}

/** A turn of three tokens. */
const threeTokens: Behaviour = (response) => {
  response.writeHead(200, { "content-type": "text/event-stream" });
  write(response, "thread_lifecycle", { phase: "started" });
  for (const text of ["one", "two", "three"]) write(response, "text_delta", { text });
  write(response, "thread_lifecycle", { phase: "completed" });
  response.end();
};

/** A turn with one event, which then stays open. */
const quiet: Behaviour = (response) => {
  response.writeHead(200, { "content-type": "text/event-stream" });
  write(response, "text_delta", { text: "only" });
};

async function start(behaviour: Behaviour): Promise<string> {
  api.behave("/execute", behaviour);
  const turnId = randomUUID();
  const input = { turnId, userId: "ada", request: { message: "hi", taskId: turnId } };
  const { body } = await api.mutate("turns.start", { key, input });
  expect(body.result?.data ?? body).toMatchObject({ turnId, created: true });
  return turnId;
}

function findLive(turnId: string): LiveTurn {
  const turn = api.ctx.turns.find(productId, turnId);
  if (turn === undefined) throw new Error("the turn is not live");
  return turn;
}

async function collect(items: AsyncIterable<StreamItem>): Promise<StreamItem[]> {
  const all: StreamItem[] = [];
  for await (const item of items) all.push(item);
  return all;
}

const dataOf = (items: StreamItem[]) =>
  items.filter(({ event }) => event === undefined).map(({ data }) => data);
const seqsOf = (items: StreamItem[]) =>
  dataOf(items).flatMap(({ events }: { events: { seq: number }[] }) => events.map(({ seq }) => seq));
const typesOf = (items: StreamItem[]) =>
  dataOf(items).flatMap(({ events }: { events: { type: string }[] }) => events.map(({ type }) => type));

const toInput = (userId = "ada") => {
  const turnId = randomUUID();
  return { turnId, userId, request: { message: "hi", taskId: turnId } };
};
const silent: Behaviour = (response) => {
  response.writeHead(200, { "content-type": "text/event-stream" });
  response.flushHeaders();
};

describe("turns.execute", () => {
  test("starts the turn once, and each call with its id reads all of it", async () => {
    api.behave("/execute", threeTokens);
    const input = toInput();
    const [first, second] = await Promise.all([
      collect(api.subscribe("turns.execute", { key, input })),
      collect(api.subscribe("turns.execute", { key, input })),
    ]);
    expect(seqsOf(first)).toEqual([1, 2, 3, 4, 5]);
    expect(seqsOf(second)).toEqual([1, 2, 3, 4, 5]);
    const again = { ...input, lastEventId: "3" };
    expect(seqsOf(await collect(api.subscribe("turns.execute", { key, input: again })))).toEqual([4, 5]);
    const other = { ...input, request: { ...input.request, message: "something else" } };
    const refused = await collect(api.subscribe("turns.execute", { key, input: other }));
    expect(refused.at(-1)?.data.data.reason).toBe("IDEMPOTENCY_MISMATCH");
    const { body } = await api.query("turns.list", { key, input: { userId: "ada" } });
    const turns = body.result.data.items.filter(({ turnId }: { turnId: string }) => turnId === input.turnId);
    expect(turns).toHaveLength(1);
  });

  test("sends an item without events when the turn has begun and its engine is silent", async () => {
    api.behave("/execute", silent);
    const input = toInput();
    for await (const { event, id, data } of api.subscribe("turns.execute", { key, input })) {
      if (event !== undefined) continue;
      expect([id, data]).toEqual(["0", { turnId: input.turnId, events: [] }]);
      break;
    }
    const { body } = await api.query("turns.get", { key, input: { turnId: input.turnId } });
    expect(body.result.data.status).toBe("streaming");
    await api.mutate("turns.cancel", { key, input: { turnId: input.turnId } });
  });

  test("sends a refused start as the stream's only event", async () => {
    const input = toInput("nobody");
    const items = await collect(api.subscribe("turns.execute", { key, input }));
    expect(items.map(({ event }) => event)).toEqual(["connected", "serialized-error"]);
    expect(items.at(-1)?.data.data.reason).toBe("ENGINE_NOT_FOUND");
    const { body } = await api.query("turns.get", { key, input: { turnId: input.turnId } });
    expect(body.error.data.reason).toBe("TURN_NOT_FOUND");
  });

  test("answers a final refusal with a 4xx, so that tRPC's link does not send it again", async () => {
    api.behave("/execute", (response) => response.writeHead(503).end("busy"));
    const items = await collect(api.subscribe("turns.execute", { key, input: toInput() }));
    expect(items.at(-1)?.data).toMatchObject({ data: { reason: "ENGINE_UNHEALTHY", httpStatus: 412 } });
  });

  test("starts nothing for a reader that sends a cursor", async () => {
    api.behave("/execute", threeTokens);
    const input = { ...toInput(), lastEventId: "2" };
    const items = await collect(api.subscribe("turns.execute", { key, input }));
    expect(items.at(-1)?.data.data.reason).toBe("TURN_NOT_FOUND");
  });
});

describe("turns.events", () => {
  test("sends batches with the seq of their last event as id, then the end, then return", async () => {
    const turnId = await start(threeTokens);
    const items = await collect(api.subscribe("turns.events", { key, input: { turnId } }));
    expect(typesOf(items)).toEqual([
      "thread_lifecycle",
      "text_delta",
      "text_delta",
      "text_delta",
      "thread_lifecycle",
    ]);
    const batches = dataOf(items);
    expect(batches.at(-1).end).toMatchObject({ status: "completed", reason: null, lastSeq: 6 });
    expect(batches.every((batch) => batch.turnId === turnId)).toBe(true);
    expect(items.filter(({ event }) => event === undefined).at(-1)?.id).toBe("6");
    expect(items.at(-1)?.event).toBe("return");
  });

  test("resumes after the reader's cursor, which is in the input or in a header", async () => {
    const turnId = await start(threeTokens);
    const byInput = await collect(
      api.subscribe("turns.events", { key, input: { turnId, lastEventId: "3" } }),
    );
    expect(seqsOf(byInput)).toEqual([4, 5]);
    const headers = { "last-event-id": "4" };
    const byHeader = await collect(api.subscribe("turns.events", { key, input: { turnId }, headers }));
    expect(seqsOf(byHeader)).toEqual([5]);
  });

  test.each(["x", "-1", "1.5", "1e3", "9".repeat(16), " 1"])(
    "refuses the cursor %j with a 4xx, so that the reader does not come back",
    async (lastEventId) => {
      const items = await collect(
        api.subscribe("turns.events", { key, input: { turnId: randomUUID(), lastEventId } }),
      );
      expect(items.at(-1)).toMatchObject({
        event: "serialized-error",
        data: { code: -32600, data: { reason: "INVALID_INPUT" } },
      });
    },
  );

  test("of an absent turn, or of another product's turn, answers TURN_NOT_FOUND as a 4xx", async () => {
    const turnId = await start(threeTokens);
    const other = await api.register("other");
    for (const call of [
      { key, input: { turnId: randomUUID() } },
      { key: other.apiKey, input: { turnId } },
    ]) {
      const items = await collect(api.subscribe("turns.events", call));
      expect(items.at(-1)).toMatchObject({
        event: "serialized-error",
        data: { code: -32004, data: { reason: "TURN_NOT_FOUND", httpStatus: 404 } },
      });
    }
  });

  test("leaves the turn when its reader leaves, and the turn continues", async () => {
    let engine: ServerResponse | undefined;
    const turnId = await start((response) => {
      engine = response.writeHead(200, { "content-type": "text/event-stream" });
      write(response, "text_delta", { text: "first" });
    });
    const leave = vi.spyOn(findLive(turnId), "leave");
    for await (const { event } of api.subscribe("turns.events", { key, input: { turnId } })) {
      if (event === undefined) break;
    }
    await expect.poll(() => leave.mock.calls.length).toBe(1);
    if (engine === undefined) throw new Error("the engine got no request");
    write(engine, "text_delta", { text: "second" });
    write(engine, "thread_lifecycle", { phase: "completed" });
    engine.end();
    const status = async () =>
      (await api.query("turns.get", { key, input: { turnId } })).body.result.data.status;
    await expect.poll(status).toBe("completed");
  });
});

test("when a connection breaks, all streams that were pipelined on it leave the turn", async () => {
  const turnId = await start(quiet);
  const turn = findLive(turnId);
  const [join, leave] = [vi.spyOn(turn, "join"), vi.spyOn(turn, "leave")];
  const body = JSON.stringify({ turnId });
  const head = ["POST /trpc/turns.events HTTP/1.1", "Host: localhost", `Authorization: Bearer ${key}`];
  const size = ["Content-Type: application/json", `Content-Length: ${body.length}`];
  const socket = connect(Number(new URL(api.url).port), "127.0.0.1");
  socket.write(`${[...head, ...size].join("\r\n")}\r\n\r\n${body}`.repeat(12));
  await expect.poll(() => join.mock.calls.length).toBe(12);
  socket.resetAndDestroy();
  await expect.poll(() => leave.mock.calls.length).toBe(12);
});

describe("an open stream", () => {
  test("ends with KEY_REVOKED soon after a revocation of its key, and the turn continues", async () => {
    const { keyId, apiKey } = await api.issue(productId);
    const turnId = await start(quiet);
    const stream = api.subscribe("turns.events", { key: apiKey, input: { turnId } });
    // Wait for the first item: until then, a revoked key refuses the whole call.
    await stream.next();
    await api.mutate("platformKeys.revoke", { key: ADMIN_KEY, input: { keyId } });
    const items = await collect(stream);
    expect(dataOf(items).at(-1)).toMatchObject({
      turnId,
      events: [],
      end: { status: "interrupted", reason: "KEY_REVOKED", lastSeq: 1, engineMayContinue: true },
    });
    expect(items.at(-1)?.event).toBe("return");
    const { body } = await api.query("turns.get", { key, input: { turnId } });
    expect(body.result.data.status).toBe("streaming");
    await api.mutate("turns.cancel", { key, input: { turnId } });
  });

  test("ends without return when the server closes, so that its reader comes back", async () => {
    await using leaving = await openApi();
    const product = await leaving.register("leaving");
    const call = { key: product.apiKey };
    await leaving.mutate("engines.provision", { ...call, input: { userId: "ada" } });
    leaving.behave("/execute", quiet);
    const turnId = randomUUID();
    const input = { turnId, userId: "ada", request: { message: "hi", taskId: "t" } };
    await leaving.mutate("turns.start", { ...call, input });
    const items: StreamItem[] = [];
    for await (const item of leaving.subscribe("turns.events", { ...call, input: { turnId } })) {
      items.push(item);
      if (item.event === undefined) void leaving.server.close();
    }
    expect(items.map(({ event }) => event)).toEqual(["connected", undefined]);
    expect(dataOf(items)[0]).not.toHaveProperty("end");
  });
});

/** Writes the same events with tRPC's own handler. */
async function writeByTrpc(text: string): Promise<Response> {
  const items: EventSourceMessage[] = [];
  createParser({ onEvent: (item) => items.push(item) }).feed(text);
  const refusal = items.find(({ event }) => event === "serialized-error");
  const t = initTRPC.create({
    sse: { client: { reconnectAfterInactivityMs: 30_000 } },
    errorFormatter: () => JSON.parse(refusal?.data ?? "null"),
  });
  const procedure = t.procedure.subscription(async function* () {
    for (const { event, id, data } of items) {
      if (event === undefined) yield tracked(id ?? "", JSON.parse(data));
    }
    if (refusal) throw new Error("refused");
  });
  return resolveResponse({
    router: t.router({ stream: procedure }),
    req: new Request("http://127.0.0.1/trpc/stream"),
    path: "stream",
    error: null,
    createContext: async () => ({}),
  });
}

describe("the format of a stream", () => {
  test.each(["a turn", "a refusal"])(
    "is equal byte by byte to that of tRPC's own handler: %s",
    async (what) => {
      const turnId = what === "a turn" ? await start(threeTokens) : randomUUID();
      const url = `${api.url}/trpc/turns.events?input=${encodeURIComponent(JSON.stringify({ turnId }))}`;
      const ours = await fetch(url, { headers: { authorization: `Bearer ${key}` } });
      const text = await ours.text();
      const theirs = await writeByTrpc(text);
      expect(text).toContain(what === "a turn" ? "event: return" : "TURN_NOT_FOUND");
      expect(text).toBe(await theirs.text());
      for (const name of ["content-type", "cache-control", "x-accel-buffering", "vary"]) {
        expect(ours.headers.get(name)).toBe(theirs.headers.get(name));
      }
    },
  );

  test("is understood by tRPC's own link, a refusal too", async () => {
    class KeyedEventSource extends EventSource {
      constructor(url: string | URL) {
        const authorization = `Bearer ${key}`;
        super(url, {
          fetch: async (input, init) =>
            fetch(input, { ...init, headers: { ...init.headers, authorization } }),
        });
      }
    }
    const url = `${api.url}/trpc`;
    const client = createTRPCClient<AppRouter>({
      links: [httpSubscriptionLink({ url, EventSource: KeyedEventSource })],
    });
    const readAll = async (turnId: string) => {
      const ids: string[] = [];
      for await (const { id } of client.turns.events.subscribe({ turnId })) ids.push(id);
      return ids;
    };
    expect((await readAll(await start(threeTokens))).at(-1)).toBe("6");
    const error: unknown = await readAll(randomUUID()).catch((failure: unknown) => failure);
    expect(error).toBeInstanceOf(TRPCClientError);
    expect((error as TRPCClientError<AppRouter>).data?.reason).toBe("TURN_NOT_FOUND");
  });

  test("does not depend on a fragment in the URL", async () => {
    const turnId = await start(threeTokens);
    const path = `/trpc/turns.events?input=${encodeURIComponent(JSON.stringify({ turnId }))}#&batch=1`;
    const sent = request(api.url, { path, headers: { authorization: `Bearer ${key}` }, agent: false }).end();
    const [response] = (await once(sent, "response")) as [IncomingMessage];
    expect(response.headers["content-type"]).toBe("text/event-stream");
    expect((await response.toArray()).join("")).toContain("event: return");
  });

  test("a subscription in a batch is refused", async () => {
    const { status, body } = await api.query("turns.events?batch=1&", { key });
    expect(status).toBe(400);
    expect(JSON.stringify(body)).toContain("INVALID_INPUT");
  });
});

test("turns.get, list and cancel show the same turn", async () => {
  const earlierId = await start(threeTokens);
  const turnId = await start(quiet);
  const cancelled = await api.mutate("turns.cancel", { key, input: { turnId: turnId.toUpperCase() } });
  expect(cancelled.body.result.data).toMatchObject({
    turnId,
    userId: "ada",
    status: "cancelled",
    end: { status: "cancelled", reason: "CANCELLED", engineMayContinue: true },
  });
  const got = await api.query("turns.get", { key, input: { turnId } });
  expect(got.body.result.data).toEqual(cancelled.body.result.data);
  const page = { userId: "ada", limit: 1 };
  const listed = (await api.query("turns.list", { key, input: page })).body.result.data;
  expect(listed.items[0].turnId).toBe(turnId);
  const next = await api.query("turns.list", { key, input: { ...page, cursor: listed.nextCursor } });
  expect(next.body.result.data.items[0].turnId).toBe(earlierId);
});

test("equal turn ids in two products are two turns", async () => {
  const other = await api.register("twin");
  await api.mutate("engines.provision", { key: other.apiKey, input: { userId: "ada" } });
  api.behave("/execute", threeTokens);
  const turnId = randomUUID();
  const input = { turnId, userId: "ada", request: { message: "hi", taskId: turnId } };
  for (const apiKey of [key, other.apiKey]) {
    const { body } = await api.mutate("turns.start", { key: apiKey, input });
    expect(body.result.data.created).toBe(true);
  }
});

test("a typed tRPC client can call every kind of procedure, also rpc.call", async () => {
  const headers = { authorization: `Bearer ${key}` };
  const client = createTRPCClient<AppRouter>({ links: [httpLink({ url: `${api.url}/trpc`, headers })] });
  const engine = await client.engines.get.query({ userId: "ada" });
  expect(engine.status).toBe("running");
  const answer = await client.rpc.call.mutate({ userId: "ada", method: "m" });
  expect(answer).toEqual({ result: null, generation: 1 });
  const page = await client.engines.list.query();
  expect(page.items).toHaveLength(1);
  const viaOperator = createTRPCClient<AppRouter>({
    links: [httpLink({ url: `${api.url}/trpc`, headers: { authorization: `Bearer ${ADMIN_KEY}` } })],
  });
  const same = await viaOperator.engines.get.query({ product: "streaming", userId: "ada" });
  expect(same.engineId).toBe(engine.engineId);
});
