import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { retireTurns } from "../../../server/turns/log/retire-turns.ts";
import { shiftDatabaseClock } from "../../support/shift-clock.ts";
import type { StreamItem } from "../open-api.ts";
import { openRaw, type Raw, threeTokens } from "../raw/open-raw.ts";

const EVENT_MAX_BYTES = 1024 * 1024;
const TYPE = "text_delta";

/** What a reader got, whichever the wire: gaps, events and the end, in order. */
interface Item {
  kind: "gap" | "event" | "end";
  /** The cursor that the reader resumes from. Items of one tRPC batch share it. */
  id: string | undefined;
  data: unknown;
}

let raw: Raw;
beforeAll(async () => {
  raw = await openRaw({ eventMaxBytes: EVENT_MAX_BYTES });
});
afterAll(async () => raw[Symbol.asyncDispose]());

/** Starts a turn and waits for its end. */
async function complete(): Promise<string> {
  const turnId = randomUUID();
  const input = { turnId, userId: "ada", request: { message: "hi", taskId: turnId } };
  await raw.api.mutate("turns.start", { key: raw.key, input });
  await expect.poll(() => raw.api.ctx.turns.find(raw.productId, turnId)).toBeUndefined();
  return turnId;
}

async function readTrpc(turnId: string): Promise<Item[]> {
  const items: Item[] = [];
  for await (const batch of raw.api.subscribe("turns.events", { key: raw.key, input: { turnId } }))
    items.push(...fromBatch(batch));
  return items;
}

function fromBatch({ id, event, data }: StreamItem): Item[] {
  if (event !== undefined) return [];
  const { gap, events, end } = data as {
    gap?: unknown;
    events: { data: unknown }[];
    end?: unknown;
  };
  return [
    ...(gap === undefined ? [] : [{ kind: "gap" as const, id, data: gap }]),
    ...events.map((one) => ({ kind: "event" as const, id, data: one.data })),
    ...(end === undefined ? [] : [{ kind: "end" as const, id, data: end }]),
  ];
}

async function readRaw(turnId: string): Promise<Item[]> {
  const { events } = await raw.events(turnId);
  return events.map(({ id, event, data }) => ({
    kind: event === "enginehouse.gap" ? "gap" : event === "enginehouse.end" ? "end" : "event",
    id,
    data: JSON.parse(data) as unknown,
  }));
}

describe.each([
  ["tRPC", readTrpc],
  ["the raw route", readRaw],
])("over %s", (_wire, read) => {
  test.each([
    ["of one-byte characters", "x"],
    ["of two-byte characters", "ä"],
  ])(
    "an event %s of exactly the limit arrives whole, and one byte more ends the turn",
    async (_what, char) => {
      const room = EVENT_MAX_BYTES - TYPE.length - '{"text":""}'.length;
      const pad = "-".repeat(room % Buffer.byteLength(char));
      const largest = pad + char.repeat((room - pad.length) / Buffer.byteLength(char));
      const send = (text: string) =>
        raw.api.behave("/execute", (response) => {
          response.writeHead(200, { "content-type": "text/event-stream" });
          response.write(`event: ${TYPE}\ndata: {"text":"before"}\n\n`);
          response.write(`event: ${TYPE}\ndata: {"text":"${text}"}\n\n`);
          response.end('event: thread_lifecycle\ndata: {"phase":"completed"}\n\n');
        });
      send(largest);
      const whole = await read(await complete());
      expect(whole.map(({ kind }) => kind)).toEqual(["event", "event", "event", "end"]);
      // Not toEqual: it would print a megabyte.
      expect(JSON.stringify(whole[1]?.data) === JSON.stringify({ text: largest })).toBe(true);
      expect(whole.at(-1)?.data).toMatchObject({ status: "completed", lastSeq: 4 });

      send(`${largest}-`);
      const failed = await read(await complete());
      expect(failed.map(({ kind }) => kind)).toEqual(["event", "end"]);
      expect(failed.at(-1)?.data).toMatchObject({ status: "failed", reason: "EVENT_TOO_LARGE", lastSeq: 2 });
    },
  );

  test("events that the log has lost are a gap, and the events after them follow it", async () => {
    raw.api.behave("/execute", (response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      // Rows of the log hold at most 256 events.
      for (let n = 1; n <= 600; n += 1) response.write(`event: m\ndata: {"n":${n}}\n\n`);
      response.end('event: thread_lifecycle\ndata: {"phase":"completed"}\n\n');
    });
    const turnId = await complete();
    const { raw: sql } = raw.api.ctx;
    const [row] = await sql<{ from: number; to: number }[]>`
      delete from turn_events where turn_id = ${turnId} and first_seq = (
        select min(first_seq) from turn_events where turn_id = ${turnId} and first_seq > 1)
      returning first_seq::int as from, last_seq::int as to`;
    const { from = 0, to = 0 } = row ?? {};
    expect(from).toBeGreaterThan(1);
    const items = await read(turnId);
    const gap = { kind: "gap", id: `${to}`, data: { fromSeq: from, toSeq: to, reason: "lost" } };
    expect(items.filter(({ kind }) => kind === "gap")).toMatchObject([{ data: gap.data }]);
    const at = items.findIndex(({ kind }) => kind === "gap");
    expect(items[at]).toEqual(gap);
    expect([items[at - 1]?.data, items[at + 1]?.data]).toEqual([{ n: from - 1 }, { n: to + 1 }]);
    expect(items.filter(({ kind }) => kind === "event")).toHaveLength(601 - (to - from + 1));
    expect(items.at(-1)).toMatchObject({ kind: "end", id: "602", data: { status: "completed" } });
  });
});

test("events that retention has dropped are a gap before the end, over both wires", async () => {
  await using old = await openRaw();
  old.api.behave("/execute", threeTokens);
  const turnId = (await old.execute({ body: { message: "hi", task_id: "old" } })).headers.get("x-turn-id");
  await shiftDatabaseClock(old.api.databaseUrl, "5 hours");
  expect(await retireTurns(old.api.ctx)).toEqual({ droppedPartitions: 1 });
  const gap = { fromSeq: 1, toSeq: 5, reason: "retention" };
  const { events } = await old.events(turnId ?? "");
  expect(events.map(({ id, event }) => [id, event])).toEqual([
    ["5", "enginehouse.gap"],
    ["6", "enginehouse.end"],
  ]);
  expect(JSON.parse(events[0]?.data ?? "")).toEqual(gap);
  const batches: StreamItem[] = [];
  for await (const item of old.api.subscribe("turns.events", { key: old.key, input: { turnId } }))
    batches.push(item);
  expect(batches.flatMap(fromBatch)).toMatchObject([
    { kind: "gap", id: "6", data: gap },
    { kind: "end", id: "6", data: { status: "completed", lastSeq: 6 } },
  ]);
  // A reader that has all events but the end misses nothing.
  const late = await old.events(turnId ?? "", { headers: { "last-event-id": "5" } });
  expect(late.events.map(({ event }) => event)).toEqual(["enginehouse.end"]);
});
