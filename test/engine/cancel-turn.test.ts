import { expect, test } from "vitest";
import { openHome, readAll, readUntil, spawnEngine, type RunningEngine } from "./spawn-engine.ts";

const cancel = async (engine: RunningEngine, taskId: string) =>
  engine.post("/execute/cancel", { task_id: taskId });

test("a cancelled turn ends with lifecycle errored, and its task takes the next message at once", async () => {
  await using home = await openHome();
  await using engine = await spawnEngine(home);
  const slow = { message: "one two", task_id: "t", reference: { words: 1_000, delayMs: 50 } };
  const turn = await engine.open(slow);
  await readUntil(turn, "text_delta");
  expect(await cancel(engine, "t")).toEqual({ status: 200, body: { cancelled: true } });
  const next = await engine.execute({ message: "three", task_id: "t" });
  expect(next.at(-1)?.data["phase"]).toBe("completed");
  const last = (await readAll(turn)).at(-1);
  expect(last).toMatchObject({
    type: "thread_lifecycle",
    data: { phase: "errored", task_id: "t", error: "CANCELLED", message: "the turn was cancelled" },
  });
  const errored = (await engine.replay(0)).filter(({ data }) => data["phase"] === "errored");
  expect(errored).toMatchObject([{ data: { turn_id: last?.data["turn_id"] } }]);
  const { body } = await engine.rpc("memory.get_thread", { task_id: "t" });
  const messages = (body as { result: { messages: { role: string; exchange: number }[] } }).result.messages;
  expect(messages.map(({ role, exchange }) => `${exchange} ${role}`)).toEqual([
    "1 user",
    "2 user",
    "2 assistant",
  ]);
});

test("a turn that waits for a person is cancelled with its question", async () => {
  await using home = await openHome();
  await using engine = await spawnEngine(home);
  const turn = await engine.open({ message: "hi", task_id: "t", reference: { askHuman: true } });
  await readUntil(turn, "hitl_request");
  expect((await cancel(engine, "t")).body).toEqual({ cancelled: true });
  expect((await readAll(turn)).at(-1)?.data["phase"]).toBe("errored");
  expect((await engine.get("/hitl/pending")).body).toEqual({ pending: [] });
  const late = await engine.post("/hitl/respond", { task_id: "t", answer: "yes" });
  expect(late).toMatchObject({ status: 422, body: { error: "NO_PENDING_REQUEST" } });
});

test("only a turn in flight is cancelled, and two calls at once do no harm", async () => {
  await using home = await openHome();
  await using engine = await spawnEngine(home);
  expect((await cancel(engine, "t")).body).toEqual({ cancelled: false });
  expect((await engine.post("/execute/cancel", {})).status).toBe(400);
  await engine.execute({ message: "done", task_id: "t" });
  expect((await cancel(engine, "t")).body).toEqual({ cancelled: false });
  const other = await engine.open({ message: "hi", task_id: "other", reference: { delayMs: 10 } });
  const turn = await engine.open({ message: "hi", task_id: "t", reference: { words: 500, delayMs: 50 } });
  await readUntil(turn, "thread_lifecycle");
  const replies = await Promise.all([cancel(engine, "t"), cancel(engine, "t")]);
  for (const { status, body } of replies) {
    expect({ status, body }).toEqual({ status: 200, body: { cancelled: expect.any(Boolean) } });
  }
  // The call that comes second finds the turn, or the free task.
  expect(replies.map(({ body }) => body)).toContainEqual({ cancelled: true });
  expect((await readAll(turn)).at(-1)?.data["phase"]).toBe("errored");
  expect((await readAll(other)).at(-1)?.data["phase"]).toBe("completed");
});

test("a cancel at any moment of a turn leaves a task that takes the next message", async () => {
  await using home = await openHome();
  await using engine = await spawnEngine(home);
  for (let round = 0; round < 30; round += 1) {
    const turn = await engine.open({ message: "hi", task_id: "t", reference: { words: 40 } });
    for (let event = 0; event < round; event += 1) await turn.next();
    const { body } = await cancel(engine, "t");
    const rest = await readAll(turn);
    const last = rest.at(-1)?.data["phase"];
    expect(last).toBe((body as { cancelled: boolean }).cancelled ? "errored" : "completed");
  }
  expect((await engine.execute({ message: "hi", task_id: "t" })).at(-1)?.data["phase"]).toBe("completed");
});
