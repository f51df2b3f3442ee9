import { DatabaseSync } from "node:sqlite";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  ENGINE_KEY,
  openHome,
  readAll,
  readEvents,
  readUntil,
  spawnEngine,
  type EngineHome,
  type Event,
  type RunningEngine,
} from "./spawn-engine.ts";

let home: EngineHome;
let engine: RunningEngine;
beforeAll(async () => {
  home = await openHome();
  engine = await spawnEngine(home);
});
afterAll(async () => {
  await engine[Symbol.asyncDispose]();
  await home[Symbol.asyncDispose]();
});

const idsOf = (events: readonly Event[]) => events.map((event) => Number(event.id));

async function replayOf(taskId: string, lastEventId?: string): Promise<Event[]> {
  return readAll(readEvents(await engine.openReplay(taskId, lastEventId)));
}

async function statusOf(response: Promise<Response>): Promise<unknown> {
  const { status, headers, body } = await response;
  await body?.cancel();
  return [status, headers.get("content-type")];
}

test("each event of a turn has an id, and the ids of a task grow, also from turn to turn", async () => {
  const first = await engine.execute({ message: "hi", task_id: "ids", reference: { words: 50 } });
  const second = await engine.execute({ message: "hi", task_id: "ids" });
  const ids = idsOf([...first, ...second]);
  expect(ids.every(Number.isSafeInteger)).toBe(true);
  expect(ids).toEqual([...new Set(ids)].toSorted((a, b) => a - b));
});

test("a replay after any event of an ended turn has the rest of that turn, and nothing of a later turn", async () => {
  const first = await engine.execute({ message: "hi", task_id: "ended" });
  const second = await engine.execute({ message: "again", task_id: "ended" });
  for (const [index, event] of first.entries()) {
    expect(await replayOf("ended", event.id)).toEqual(first.slice(index + 1));
  }
  expect(await replayOf("ended", second[0]?.id)).toEqual(second.slice(1));
});

test("a replay of a task without an event id has its newest turn from the first event on", async () => {
  await engine.execute({ message: "hi", task_id: "newest" });
  const second = await engine.execute({ message: "again", task_id: "newest", reference: { words: 700 } });
  expect(await replayOf("newest")).toEqual(second);
});

test("several replays of a live turn get the past and the live rest, as its first reader does", async () => {
  const reference = { words: 150, delayMs: 5 };
  const turn = await engine.open({ message: "hi", task_id: "live", reference });
  const seen = await readUntil(turn, "text_delta");
  const replays = [undefined, seen[0]?.id, seen.at(-1)?.id].map(async (id) => replayOf("live", id));
  const all = [...seen, ...(await readAll(turn))];
  expect(await Promise.all(replays)).toEqual([all, all.slice(1), all.slice(seen.length)]);
  expect(all.at(-1)?.data["phase"]).toBe("completed");
});

test("a turn goes on at its replay after its first reader has left, and a replay that leaves ends nothing", async () => {
  const leaving = new AbortController();
  const reference = { words: 100, delayMs: 5 };
  const turn = await engine.open({ message: "hi", task_id: "left", reference }, leaving.signal);
  const seen = await readUntil(turn, "text_delta");
  const rest = readEvents(await engine.openReplay("left", seen.at(-1)?.id));
  const alsoLeaving = new AbortController();
  const other = readEvents(await engine.openReplay("left", undefined, alsoLeaving.signal));
  await readUntil(other, "text_delta");
  leaving.abort();
  alsoLeaving.abort();
  const all = [...seen, ...(await readAll(rest))];
  expect(all.filter((event) => event.type === "text_delta")).toHaveLength(100);
  expect(all.at(-1)?.data["phase"]).toBe("completed");
});

async function executeNamed(name: string | undefined): Promise<Response> {
  return fetch(`${engine.url}/execute`, {
    method: "POST",
    headers: {
      "x-engine-key": ENGINE_KEY,
      "content-type": "application/json",
      ...(name === undefined ? {} : { "x-turn-id": name }),
    },
    body: JSON.stringify({ message: "hi", task_id: "named" }),
  });
}

async function nameOfReplay(lastEventId?: string): Promise<string | null> {
  const response = await engine.openReplay("named", lastEventId);
  await response.body?.cancel();
  return response.headers.get("x-turn-id");
}

test("a replay says the name that the turn's caller gave it", async () => {
  const first = await readAll(readEvents(await executeNamed("one")));
  expect(await nameOfReplay()).toBe("one");
  await readAll(readEvents(await executeNamed(undefined)));
  expect(await nameOfReplay()).toBeNull();
  expect(await nameOfReplay(first[3]?.id)).toBe("one");
});

test("an unknown task is 404, an event that the task never had is 410, and an id that is none is 400", async () => {
  const [event] = await engine.execute({ message: "hi", task_id: "known" });
  const [other] = await engine.execute({ message: "hi", task_id: "another" });
  const json = "application/json";
  expect(await statusOf(engine.openReplay("unknown"))).toEqual([404, json]);
  expect(await statusOf(engine.openReplay("unknown", event?.id))).toEqual([404, json]);
  expect(await statusOf(engine.openReplay("known", other?.id))).toEqual([410, json]);
  expect(await statusOf(engine.openReplay("known", "1"))).toEqual([410, json]);
  expect(await statusOf(engine.openReplay("known", "x"))).toEqual([400, json]);
  expect(await statusOf(engine.openReplay("known", event?.id))).toEqual([200, "text/event-stream"]);
  expect((await engine.get("/execute/replay?task_id=")).status).toBe(400);
});

test("after a restart a replay still has the past events, and 410 once they are forgotten", async () => {
  await using own = await openHome();
  let events: Event[];
  {
    await using before = await spawnEngine(own);
    events = await before.execute({ message: "hi", task_id: "old" });
  }
  {
    await using after = await spawnEngine(own);
    const replay = await readAll(readEvents(await after.openReplay("old", events[2]?.id)));
    expect(replay).toEqual(events.slice(3));
  }
  const brain = new DatabaseSync(own.brainPath);
  brain.exec("UPDATE events SET at = at - 90000000");
  brain.close();
  const oldId = String(Number(events[2]?.id) - 90_000_000);
  await using after = await spawnEngine(own);
  expect(await statusOf(after.openReplay("old", oldId))).toMatchObject([200, "text/event-stream"]);
  // The next turn makes the engine forget what is older than a day.
  await after.execute({ message: "hi", task_id: "new" });
  expect(await statusOf(after.openReplay("old", oldId))).toMatchObject([410, "application/json"]);
  expect(await statusOf(after.openReplay("old"))).toMatchObject([410, "application/json"]);
});

test("a brain of the first version is opened and gets the newer columns", async () => {
  await using own = await openHome();
  {
    await using first = await spawnEngine(own);
    await first.execute({ message: "hi", task_id: "t" });
  }
  const brain = new DatabaseSync(own.brainPath);
  brain.exec(
    "DROP INDEX turns_of_task; DROP INDEX events_of_turn; ALTER TABLE turns DROP COLUMN caller_turn_id",
  );
  brain.exec("PRAGMA user_version = 1");
  brain.close();
  await using next = await spawnEngine(own);
  expect((await next.execute({ message: "hi", task_id: "t" })).at(-1)?.data["phase"]).toBe("completed");
  const { body } = await next.rpc("memory.get_thread", { task_id: "t" });
  expect(body).toMatchObject({ result: { messages: { length: 4 } } });
});
