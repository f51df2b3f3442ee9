import { expect, test } from "vitest";
import { openHome, spawnEngine, type Event } from "./spawn-engine.ts";

/** The event without the fields that the replay adds. */
function withoutReplayFields(event: Event, original: Event | undefined): Event {
  const known = Object.entries(event.data).filter(([name]) => original && name in original.data);
  return { type: event.type, data: Object.fromEntries(known) };
}

test("a replay repeats every event of a turn in order, with the ids of its task and turn", async () => {
  await using home = await openHome();
  await using engine = await spawnEngine(home);
  const live = await engine.execute({ message: "hi", task_id: "t", reference: { words: 700 } });
  const past = await engine.replay(0);
  const without = live.map(({ type, data }) => ({ type, data }));
  expect(past.map((event, index) => withoutReplayFields(event, live[index]))).toEqual(without);
  for (const event of past) {
    expect(event.data).toMatchObject({
      task_id: "t",
      turn_id: live[0]?.data["turn_id"],
      at: expect.any(Number),
    });
  }
});

test("a replay after the `at` of any event starts with the next event, also after a restart", async () => {
  await using home = await openHome();
  let all: Event[];
  {
    await using engine = await spawnEngine(home);
    await Promise.all(["a", "b"].map((task_id) => engine.execute({ message: "hi", task_id })));
    all = await engine.replay(0);
  }
  await using engine = await spawnEngine(home);
  expect(await engine.replay(0)).toEqual(all);
  for (const index of [0, 7, all.length - 2, all.length - 1]) {
    expect(await engine.replay(Number(all[index]?.data["at"]))).toEqual(all.slice(index + 1));
  }
});

test("a replay after a future time is empty, and a replay without a valid time is 400", async () => {
  await using home = await openHome();
  await using engine = await spawnEngine(home);
  await engine.execute({ message: "hi", task_id: "t" });
  expect(await engine.replay(Date.now() + 1e9)).toEqual([]);
  for (const query of ["", "?after=", "?after=x", "?after=-1", "?after=1.5", "?after=99999999999999999"]) {
    expect((await engine.get(`/execute/replay${query}`)).status).toBe(400);
  }
});
