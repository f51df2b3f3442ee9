import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import { openEngine } from "../../engine/engine.ts";
import {
  callEngine,
  ENGINE_KEY,
  openHome,
  readAll,
  readUntil,
  spawnEngine,
  toText,
  withoutHeartbeats,
} from "./spawn-engine.ts";

/** The engine sends it back in one event, larger than all buffers on the way: the turn waits until it is read. */
const LONG_ANSWER = "x".repeat(12 * 1024 * 1024);

test.each(["SIGTERM", "SIGINT"] as const)("%s ends an idle engine with exit 0", async (signal) => {
  await using home = await openHome();
  await using engine = await spawnEngine(home);
  engine.signal(signal);
  expect(await engine.exited()).toBe(0);
  expect(engine.output.stdout).toContain('"stopped"');
  expect(engine.output.stderr).toBe("");
});

test("after SIGTERM a running turn finishes, new work is refused, and a second signal changes nothing", async () => {
  await using home = await openHome();
  await using engine = await spawnEngine(home);
  const turn = await engine.open({ message: "hi", task_id: "t", reference: { words: 300, askHuman: true } });
  const seen = await readUntil(turn, "hitl_request");
  await engine.post("/hitl/respond", { task_id: "t", answer: LONG_ANSWER });
  engine.signal("SIGTERM");
  await expect.poll(() => engine.get("/health")).toMatchObject({ status: 503, body: { status: "draining" } });
  const refused = { status: 503, body: { error: "DRAINING" } };
  expect(await engine.post("/execute", { message: "x", task_id: "u" })).toMatchObject(refused);
  expect(await engine.rpc("get_config")).toMatchObject(refused);
  engine.signal("SIGTERM");
  expect((await engine.get("/health")).body).toMatchObject({ subsystems: { turns: { in_flight: 1 } } });
  const events = [...seen, ...(await readAll(turn))];
  expect(events.at(-1)?.data["phase"]).toBe("completed");
  expect(events.filter((event) => event.type === "text_delta")).toHaveLength(300);
  expect(await engine.exited()).toBe(0);

  await using next = await spawnEngine(home);
  const { body } = await next.rpc("memory.get_thread", { task_id: "t" });
  expect(body).toMatchObject({ result: { messages: [{ text: "hi" }, { text: toText(events) }] } });
});

test("SIGTERM ends a turn that waits for a human with an error event", async () => {
  await using home = await openHome();
  await using engine = await spawnEngine(home);
  const turn = await engine.open({ message: "hi", task_id: "t", reference: { askHuman: true } });
  await readUntil(turn, "hitl_request");
  engine.signal("SIGTERM");
  const rest = withoutHeartbeats(await readAll(turn));
  expect(rest).toMatchObject([{ type: "error", data: { error: "ENGINE_STOPPING" } }]);
  expect(await engine.exited()).toBe(0);
});

test("a turn that outlasts the drain ends with an error event, and a turn without a reader does not delay the stop", async () => {
  await using home = await openHome();
  const engine = await openEngine({
    keyHash: createHash("sha256").update(ENGINE_KEY).digest(),
    brainPath: home.brainPath,
    catalogDir: home.catalogDir,
    configFile: "/nowhere/gateway.yaml",
    host: "127.0.0.1",
    port: 0,
    drainLimitMs: 50,
    abortLimitMs: 500,
  });
  const calls = callEngine(engine.port);
  const slow = { words: 100_000, delayMs: 60_000 };
  const turn = await calls.open({ message: "hi", task_id: "read", reference: slow });
  const unread = await calls.open({ message: "hi", task_id: "unread", reference: { askHuman: true } });
  await readUntil(unread, "hitl_request");
  await calls.post("/hitl/respond", { task_id: "unread", answer: LONG_ANSWER });
  await readUntil(turn, "content_block_start");
  await engine.close();
  expect(await readAll(turn)).toMatchObject([{ type: "error", data: { error: "ENGINE_STOPPING" } }]);
  await expect(readAll(unread)).rejects.toThrow();
});

test("threads and config survive a restart", async () => {
  await using home = await openHome();
  const config = { model: "m", nested: { list: [1, "two", null] } };
  {
    await using engine = await spawnEngine(home);
    await engine.execute({ message: "remember the milk", task_id: "t" });
    await engine.rpc("set_config", { config });
    engine.signal("SIGTERM");
    expect(await engine.exited()).toBe(0);
  }
  await using engine = await spawnEngine(home);
  const text = toText(await engine.execute({ message: "what was it", task_id: "t" }));
  expect(text).toContain(
    'message 2 of this thread and it has 3 words. The message before it was: "remember the milk".',
  );
  expect((await engine.rpc("get_config")).body).toMatchObject({ result: { config, revision: 1 } });
});

test("after SIGKILL during a turn the brain is intact: the turn ends errored in the replay and the task is free", async () => {
  await using home = await openHome();
  let turnId: unknown;
  {
    await using engine = await spawnEngine(home);
    await engine.execute({ message: "before", task_id: "t" });
    await engine.rpc("set_config", { config: { kept: true } });
    const turn = await engine.open({ message: "cut", task_id: "t", reference: { words: 1000, delayMs: 20 } });
    turnId = (await readUntil(turn, "text_delta"))[0]?.data["turn_id"];
    const waiting = await engine.open({ message: "ask", task_id: "w", reference: { askHuman: true } });
    await readUntil(waiting, "hitl_request");
    engine.signal("SIGKILL");
    await expect(readAll(turn)).rejects.toThrow();
    await expect(readAll(waiting)).rejects.toThrow();
    expect(await engine.exited()).toBe("SIGKILL");
  }
  await using engine = await spawnEngine(home);
  expect((await engine.get("/health")).status).toBe(200);
  expect((await engine.rpc("get_config")).body).toMatchObject({
    result: { config: { kept: true }, revision: 1 },
  });
  expect((await engine.get("/hitl/pending")).body).toEqual({ pending: [] });
  const events = (await engine.replay(0)).filter((event) => event.data["turn_id"] === turnId);
  expect(events[0]).toMatchObject({ type: "thread_lifecycle", data: { phase: "started" } });
  expect(events.at(-1)).toMatchObject({ type: "thread_lifecycle", data: { phase: "errored", task_id: "t" } });
  const text = toText(await engine.execute({ message: "after", task_id: "t" }));
  expect(text).toContain('message 3 of this thread and it has 1 words. The message before it was: "cut".');
});
