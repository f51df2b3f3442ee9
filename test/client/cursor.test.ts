import { expect, test } from "vitest";
import { createClient } from "../../client/index.ts";
import {
  CONNECTED,
  openFakeService,
  RETURN,
  sendRefusal,
  sendResult,
  startStream,
  toEnd,
  toEvent,
  toSse,
} from "./fake-service.ts";

const retry = { firstDelayMs: 1, maxDelayMs: 5 };
const turnId = "0190d5d0-0000-7000-8000-000000000001";
const input = { turnId, userId: "ada", request: { message: "hello", taskId: "task" } };

/** Serves a turn of five events and its end, from any cursor. */
async function openTurnService() {
  return openFakeService(({ path, input: sent, response }) => {
    if (path === "turns.get") return sendResult(response, { turnId, userId: "ada", end: null });
    if (path === "turns.cancel") return sendResult(response, { turnId, status: "cancelled" });
    const after = Number(sent["lastEventId"] ?? 0);
    const events = [1, 2, 3, 4, 5].filter((seq) => seq > after).map((seq) => toEvent(seq));
    startStream(response);
    response.end(CONNECTED + toSse({ lastSeq: 6, events, end: toEnd(6) }) + RETURN);
  });
}

test("a turn with a cursor is read from there each time, and is not started", async () => {
  await using service = await openTurnService();
  const turn = createClient({ url: service.url, key: "key", retry }).execute({ ...input, after: 3 });
  expect(turn.cursor).toBe(3);
  expect([await turn.text(), await turn.text()]).toEqual(["4 5 ", "4 5 "]);
  expect((await turn.end).status).toBe("completed");
  expect(service.seen.map(({ path }) => path)).toEqual(["turns.get", "turns.events", "turns.events"]);
});

test("the cursor is that of the last event in the reader's hands, and in the end that of the end", async () => {
  await using service = await openTurnService();
  const client = createClient({ url: service.url, key: "key", retry });
  const turn = client.execute(input);
  for await (const event of turn) {
    expect(turn.cursor).toBe(event.seq);
    if (event.seq === 2) break;
  }
  expect(turn.cursor).toBe(2);
  const rest = client.follow({ turnId, after: turn.cursor });
  expect(await rest.text()).toBe("3 4 5 ");
  expect(rest.cursor).toBe(6);
});

test("a reader of the end only has no cursor", async () => {
  await using service = await openTurnService();
  const turn = createClient({ url: service.url, key: "key", retry }).follow({ turnId });
  await turn.end;
  expect(turn.cursor).toBe(0);
});

test("an operator's product goes along with each call for the turn", async () => {
  await using service = await openTurnService();
  const client = createClient({ url: service.url, key: "key", retry });
  const turn = client.follow({ turnId, product: "acme" });
  await turn.text();
  await turn.cancel();
  expect(service.seen.map(({ path, input: sent }) => [path, sent])).toEqual([
    ["turns.get", { turnId, product: "acme" }],
    ["turns.events", { turnId, product: "acme" }],
    ["turns.cancel", { turnId, product: "acme" }],
  ]);
});

test("the turn of another user is absent, like one that does not exist", async () => {
  await using service = await openTurnService();
  const client = createClient({ url: service.url, key: "key", retry });
  const stranger = client.follow({ turnId, userId: "bob" });
  await expect(stranger.text()).rejects.toMatchObject({ reason: "TURN_NOT_FOUND", isTransient: false });
  await expect(stranger.end).rejects.toMatchObject({ reason: "TURN_NOT_FOUND" });
  await expect(client.execute({ ...input, userId: "bob", after: 1 }).text()).rejects.toMatchObject({
    reason: "TURN_NOT_FOUND",
  });
  await using empty = await openFakeService(({ response }) => sendRefusal(response, "TURN_NOT_FOUND"));
  const none = createClient({ url: empty.url, key: "key", retry }).follow({ turnId });
  await expect(none.text()).rejects.toMatchObject({ reason: "TURN_NOT_FOUND", requestId: "request-1" });
});

test.each([-1, 1.5, Number.NaN, 2 ** 60])("%d is no cursor", (after) => {
  const client = createClient({ url: "http://127.0.0.1:1", key: "key" });
  expect(() => client.execute({ ...input, after })).toThrow(`\`after\` is ${after}`);
});

test("a cursor needs the id of its turn", () => {
  const client = createClient({ url: "http://127.0.0.1:1", key: "key" });
  expect(() => client.execute({ ...input, turnId: undefined, after: 1 })).toThrow("`after` needs `turnId`");
});
