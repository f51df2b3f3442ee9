import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { EngineConnections } from "../../../server/engine-contract/connections.ts";
import { parseEventData } from "../../../server/engine-contract/event-data.ts";
import { systemClock } from "../../../server/time/clock.ts";
import { LiveTurn } from "../../../server/turns/model/live-turn.ts";
import { TURN_TIMING } from "../../../server/turns/model/turn-timing.ts";
import { startTurn } from "../../../server/turns/start/start-turn.ts";
import { IdleWatchdog } from "../../../server/turns/upstream/idle-watchdog.ts";
import { IsoTime } from "../../../server/turns/upstream/iso-time.ts";
import { type ReaderContext, UpstreamReader } from "../../../server/turns/upstream/upstream-reader.ts";
import { CONTENT_TYPES, cutEverywhere, EVENT_STREAM_CASES } from "../../support/event-stream-cases.ts";
import { openTurnWorld, readAll, type TurnWorld } from "../turn-world.ts";

const connections = new EngineConnections();

/** What the reader needs when nothing is written to the log. */
const readerContext = {
  clock: systemClock,
  config: { eventMaxBytes: 1024 * 1024, turnMaxBytes: 64 * 1024 * 1024 },
  connections,
  isoTime: new IsoTime(),
  turns: { unwrittenLimit: Infinity },
  turnLog: { touch: () => {} },
  turnTiming: TURN_TIMING,
} as unknown as ReaderContext;

interface Read {
  type: string;
  /** As the reader has it. */
  data: unknown;
}

/** Reads a stream that an engine sends in these pieces. */
async function read(pieces: readonly Buffer[]): Promise<Read[]> {
  const turn = new LiveTurn({
    productId: randomUUID(),
    userId: "ada",
    turnId: randomUUID(),
    taskId: "t",
    fingerprint: "",
    startedBy: null,
    fencingToken: 1,
  });
  const watchdog = new IdleWatchdog(systemClock, { idleMs: 60_000, personMs: 60_000 }, turn.questions);
  const source = { pause: () => {}, resume: () => {} };
  const reader = new UpstreamReader(readerContext, { turn, watchdog, source, apiKey: "" });
  for (const piece of pieces) reader.onChunk(piece);
  reader.onClose(true, "");
  expect(await reader.untilOver(async () => "unsupported")).toMatchObject({ kind: "closed" });
  return turn.toCommit().chunks.flatMap(({ events }) => JSON.parse(events) as Read[]);
}

describe("the owner reads an engine's stream as the standard says, wherever it is cut", () => {
  test.each(EVENT_STREAM_CASES)("$title", async ({ stream, messages }) => {
    const expected = messages.map(({ type, data }) => ({ type, data: parseEventData(data).value }));
    for (const pieces of cutEverywhere(stream)) {
      const seen = (await read(pieces)).map(({ type, data }) => ({ type, data }));
      expect(seen, pieces.map(String).join("|")).toEqual(expected);
    }
  });
});

describe("an engine's answer is a stream if its content type says so", () => {
  let world: TurnWorld;
  beforeAll(async () => {
    world = await openTurnWorld();
  });
  afterAll(async () => world[Symbol.asyncDispose]());

  test.each(CONTENT_TYPES)("%j: %s", async (contentType, isEventStream) => {
    world.engine.onCall = ({ response }) => {
      response.writeHead(200, { "content-type": contentType });
      response.end(
        'event: text_delta\ndata: "ä"\n\nevent: thread_lifecycle\ndata: {"phase":"completed"}\n\n',
      );
    };
    const input = world.input();
    const starting = startTurn(world.ctx, input);
    if (!isEventStream) return expect(starting).rejects.toMatchObject({ reason: "ENGINE_ERROR" });
    await starting;
    const { events, end } = await readAll(world.ctx, input);
    expect(events[0]).toMatchObject({ type: "text_delta", data: "ä" });
    expect(end).toMatchObject({ status: "completed" });
  });
});
