import { array, assert, asyncProperty, constantFrom, integer, nat, record } from "fast-check";
import { expect, test } from "vitest";
import { createClient, type TurnEvent } from "../../client/index.ts";
import {
  CONNECTED,
  type FakeBatch,
  openFakeService,
  RETURN,
  sendResult,
  startStream,
  toEnd,
  toErrorShape,
  toEvent,
  toSse,
} from "./fake-service.ts";

const retry = { firstDelayMs: 1, maxDelayMs: 5, streamForMs: 10_000 };
const request = { message: "hello", taskId: "task" };

interface Cut {
  /** How much of the stream the connection delivers. */
  bytes: number;
  how: "reset" | "end" | "before headers";
}

/** Serves a turn of `total` events in batches of the given sizes. Its connections break as planned. */
async function openCutService(total: number, sizes: readonly number[], cuts: readonly Cut[]) {
  let connections = 0;
  let executes = 0;
  let starts = 0;
  const service = await openFakeService(async ({ path, input, response }) => {
    if (path === "turns.start") {
      starts += 1;
      return sendResult(response, { ...input, status: "streaming", generation: 1, created: true });
    }
    if (path === "turns.execute") executes += 1;
    const cut = cuts[connections];
    connections += 1;
    if (cut?.how === "before headers") return void response.socket?.resetAndDestroy();
    const text = toStream(total, sizes, Number(input["lastEventId"] ?? 0));
    startStream(response);
    if (cut === undefined) return void response.end(text);
    const part = Buffer.from(text).subarray(0, cut.bytes);
    await new Promise((resolve) => {
      response.write(part.length === 0 ? "\n" : part, resolve);
    });
    if (cut.how === "reset") response.socket?.resetAndDestroy();
    else response.end();
  });
  return { service, counts: () => ({ executes, starts }) };
}

function toStream(total: number, sizes: readonly number[], afterSeq: number): string {
  const batches: FakeBatch[] = [];
  let seq = afterSeq;
  for (let index = 0; seq < total; index += 1) {
    const size = Math.min(sizes[index % sizes.length] ?? 1, total - seq);
    const events = Array.from({ length: size }, (_, offset) =>
      toEvent(seq + offset + 1, "text_delta", { text: `é\u2028${seq + offset + 1} ` }),
    );
    seq += size;
    batches.push({ lastSeq: seq, events });
  }
  batches.push({ lastSeq: total + 1, events: [], end: toEnd(total + 1) });
  return CONNECTED + batches.map(toSse).join("event: ping\ndata: \n\n\n") + RETURN;
}

const cutPlan = array(
  record({
    bytes: nat(4_000),
    how: constantFrom("reset" as const, "end" as const, "before headers" as const),
  }),
  { maxLength: 8 },
);

test("connections that break at any byte lose no event, repeat none and keep the order", async () => {
  await assert(
    asyncProperty(
      integer({ min: 0, max: 60 }),
      array(integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 5 }),
      cutPlan,
      async (total, sizes, cuts) => {
        const { service, counts } = await openCutService(total, sizes, cuts);
        await using _service = service;
        const client = createClient({ url: service.url, key: "key", retry });
        const turn = client.execute({ userId: "ada", request });
        const seqs: number[] = [];
        for await (const event of turn) seqs.push(event.seq);
        expect(seqs).toEqual(Array.from({ length: total }, (_, index) => index + 1));
        expect((await turn.end).status).toBe("completed");
        // `turns.start` starts the turn, under the same id, if the first connection brought nothing.
        expect(counts().executes).toBe(1);
        expect(counts().starts).toBeLessThanOrEqual(1);
        client.close();
      },
    ),
    { numRuns: 60 },
  );
});

test("events that the server sends twice are yielded once", async () => {
  let connections = 0;
  await using service = await openFakeService(({ path, response }) => {
    if (path === "turns.start") return sendResult(response, {});
    connections += 1;
    startStream(response);
    const all = [1, 2, 3].map((seq) => toEvent(seq));
    if (connections === 1) response.end(CONNECTED + toSse({ lastSeq: 2, events: all.slice(0, 2) }));
    else response.end(CONNECTED + toSse({ lastSeq: 4, events: all, end: toEnd(4) }) + RETURN);
  });
  const client = createClient({ url: service.url, key: "key", retry });
  const events: TurnEvent[] = [];
  for await (const event of client.execute({ userId: "ada", request })) events.push(event);
  expect(events.map((event) => event.seq)).toEqual([1, 2, 3]);
});

test("a gap that the server does not report counts as a broken connection, and is read again", async () => {
  let connections = 0;
  await using service = await openFakeService(({ path, response }) => {
    if (path === "turns.start") return sendResult(response, {});
    connections += 1;
    startStream(response);
    const events = connections === 1 ? [toEvent(1), toEvent(2)] : [toEvent(2), toEvent(3)];
    const first = toSse({ lastSeq: 1, events: [toEvent(1)] });
    if (connections === 1) response.end(CONNECTED + first + toSse({ lastSeq: 3, events: [toEvent(3)] }));
    else response.end(CONNECTED + toSse({ lastSeq: 4, events, end: toEnd(4) }) + RETURN);
  });
  const client = createClient({ url: service.url, key: "key", retry });
  expect(await client.execute({ userId: "ada", request }).text()).toBe("1 2 3 ");
  expect(service.seen.map(({ input }) => input["lastEventId"])).toEqual([undefined, "1"]);
});

test("an error event with a 5xx status is retried, and any other one is thrown", async () => {
  const answers = ["DATABASE_UNAVAILABLE", "INTERNAL", "TURN_NOT_FOUND"];
  await using service = await openFakeService(({ path, response }) => {
    if (path === "turns.start") return sendResult(response, {});
    startStream(response);
    const shape = toErrorShape(answers.shift() ?? "INTERNAL");
    response.end(`${CONNECTED}event: serialized-error\ndata: ${JSON.stringify(shape)}\n\n\n`);
  });
  const client = createClient({ url: service.url, key: "key", retry });
  const turn = client.execute({ userId: "ada", request });
  await expect(turn.text()).rejects.toMatchObject({ reason: "TURN_NOT_FOUND", requestId: "request-1" });
  expect(answers).toEqual([]);
});

test("a stream without progress fails after `streamForMs`", async () => {
  await using service = await openFakeService(({ path, response }) => {
    if (path === "turns.start") return sendResult(response, {});
    startStream(response);
    response.end(CONNECTED);
  });
  const client = createClient({ url: service.url, key: "key", retry: { ...retry, streamForMs: 50 } });
  const turn = client.execute({ userId: "ada", request });
  await expect(turn.text()).rejects.toMatchObject({ name: "EnginehouseError", reason: "CONNECTION_LOST" });
  expect(service.seen.length).toBeGreaterThan(3);
});

test("an answer that is not an event stream is retried", async () => {
  let connections = 0;
  await using service = await openFakeService(({ path, response }) => {
    if (path === "turns.start") return sendResult(response, {});
    connections += 1;
    if (connections === 1) return void response.writeHead(502).end("bad gateway");
    if (connections === 2) return void response.writeHead(200, { "content-type": "text/html" }).end("<html>");
    startStream(response);
    response.end(CONNECTED + toSse({ lastSeq: 2, events: [toEvent(1)], end: toEnd(2) }) + RETURN);
  });
  const client = createClient({ url: service.url, key: "key", retry });
  expect(await client.execute({ userId: "ada", request }).text()).toBe("1 ");
});

test("the client opens a new connection when the server sends nothing for too long", async () => {
  let connections = 0;
  await using service = await openFakeService(({ path, response }) => {
    if (path === "turns.start") return sendResult(response, {});
    connections += 1;
    startStream(response);
    const first = toSse({ lastSeq: 1, events: [toEvent(1)] });
    const hello = 'event: connected\ndata: {"reconnectAfterInactivityMs":40}\n\n\n';
    if (connections === 1) return void response.write(hello + first);
    response.end(hello + toSse({ lastSeq: 3, events: [toEvent(2)], end: toEnd(3) }) + RETURN);
  });
  const client = createClient({ url: service.url, key: "key", retry });
  expect(await client.execute({ userId: "ada", request }).text()).toBe("1 2 ");
});

/** A replica that sends these events of the turn. Unless they are the last, it then resets the connection. */
async function openReplica(events: number[], isLast: boolean) {
  return openFakeService(({ path, response }) => {
    if (path === "turns.start") return sendResult(response, {});
    startStream(response);
    const lastSeq = (events.at(-1) ?? 0) + (isLast ? 1 : 0);
    const batch = { lastSeq, events: events.map((seq) => toEvent(seq)) };
    if (isLast) return void response.end(CONNECTED + toSse({ ...batch, end: toEnd(lastSeq) }) + RETURN);
    response.write(CONNECTED + toSse(batch), () => response.socket?.resetAndDestroy());
  });
}

test("when a replica breaks off, the client resumes at the next replica with its cursor", async () => {
  await using first = await openReplica([1, 2], false);
  await using second = await openReplica([3, 4], true);
  const client = createClient({ urls: [first.url, second.url], key: "key", retry });
  expect(await client.execute({ userId: "ada", request }).text()).toBe("1 2 3 4 ");
  expect(second.seen.map(({ path, input }) => [path, input["lastEventId"]])).toEqual([["turns.events", "2"]]);
});
