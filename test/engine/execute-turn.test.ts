import { afterAll, beforeAll, expect, test } from "vitest";
import {
  ENGINE_KEY,
  openHome,
  readAll,
  readUntil,
  spawnEngine,
  toText,
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

interface StoredMessage {
  message_id: string;
  exchange: number;
  role: string;
  text: string;
}

async function readThread(taskId: string): Promise<StoredMessage[]> {
  const { body } = await engine.rpc("memory.get_thread", { task_id: taskId });
  return (body as { result: { messages: StoredMessage[] } }).result.messages;
}

/** The types of the events. Equal types in a row count once. */
function toOutline(events: readonly Event[]): string[] {
  return events.map((event) => event.type).filter((type, index, all) => type !== all[index - 1]);
}

test("a turn starts and ends with a lifecycle event and has its parts in order", async () => {
  const events = await engine.execute({ message: "hello there", task_id: "order" });
  expect(toOutline(events)).toEqual([
    "thread_lifecycle",
    "heartbeat",
    "content_block_start",
    "thinking_delta",
    "content_block_stop",
    "content_block_start",
    "tool_call",
    "tool_result",
    "content_block_stop",
    "content_block_start",
    "text_delta",
    "content_block_stop",
    "working_memory_update",
    "usage",
    "thread_lifecycle",
  ]);
  const [first, last] = [events[0], events.at(-1)];
  expect(first?.data).toMatchObject({ phase: "started", task_id: "order", turn_id: expect.any(String) });
  expect(last?.data).toMatchObject({ phase: "completed", task_id: "order", turn_id: first?.data["turn_id"] });
  for (const event of [first, last]) {
    const timestamp = String(event?.data["timestamp"]);
    expect(new Date(timestamp).toISOString()).toBe(timestamp);
  }
});

test("blocks have an index and a type, and a tool result names its call", async () => {
  const events = await engine.execute({ message: "count these four words", task_id: "blocks" });
  const blocks = events.filter((event) => event.type.startsWith("content_block"));
  expect(blocks.map((event) => event.data)).toEqual(
    ["thinking", "tool_use", "text"].flatMap((block_type, block_index) => [
      { block_type, block_index },
      { block_type, block_index },
    ]),
  );
  const call = events.find((event) => event.type === "tool_call");
  const result = events.find((event) => event.type === "tool_result");
  expect(call?.data).toMatchObject({ tool: "count_words", input: { task_id: "blocks" } });
  expect(result?.data).toEqual({
    tool_call_id: call?.data["tool_call_id"],
    output: { messages: 1, words: 4 },
  });
});

test("the answer quotes its own thread and no other thread", async () => {
  const first = toText(await engine.execute({ message: "my name is Ada", task_id: "recall" }));
  expect(first).toBe("This is message 1 of this thread and it has 4 words. I remember no message before it.");
  await engine.execute({ message: "something else", task_id: "recall-other" });
  const second = toText(await engine.execute({ message: "who am I", task_id: "recall" }));
  expect(second).toBe(
    'This is message 2 of this thread and it has 3 words. The message before it was: "my name is Ada".',
  );
});

test("threads with the same history get the same answers", async () => {
  for (const message of ["one", "two", "three"]) {
    const [left, right] = await Promise.all(
      ["twin-a", "twin-b"].map(async (task_id) => toText(await engine.execute({ message, task_id }))),
    );
    expect(left).toBe(right);
  }
});

test("usage counts the input, its part that was seen before, and the answer", async () => {
  await engine.execute({ message: "one two three", task_id: "usage", reference: { words: 10 } });
  const events = await engine.execute({ message: "four five", task_id: "usage", reference: { words: 7 } });
  expect(events.find((event) => event.type === "usage")?.data).toEqual({
    input_tokens: 15,
    cached_input_tokens: 13,
    output_tokens: 7,
  });
});

test("a turn with reference.words has exactly that many text deltas, and the stored answer is their text", async () => {
  for (const words of [1, 5, 200]) {
    const events = await engine.execute({ message: "hi", task_id: `words-${words}`, reference: { words } });
    expect(events.filter((event) => event.type === "text_delta")).toHaveLength(words);
    expect((await readThread(`words-${words}`)).at(-1)?.text).toBe(toText(events));
  }
});

test("a direct turn has no thinking and no tool", async () => {
  const events = await engine.execute({ message: "hi", task_id: "direct", direct: true });
  expect(toOutline(events)).toEqual([
    "thread_lifecycle",
    "heartbeat",
    "content_block_start",
    "text_delta",
    "content_block_stop",
    "working_memory_update",
    "usage",
    "thread_lifecycle",
  ]);
});

test("the answer names media by type, and unknown fields are ignored", async () => {
  const media = [{ type: "image", data: "aGk=" }, { type: "file" }, "strange"];
  const events = await engine.execute({
    message: "look",
    task_id: "media",
    media,
    brand_new_field: { a: 1 },
  });
  expect(toText(events)).toContain("Attached: image, file, unknown.");
});

test("a null field counts as absent", async () => {
  const body = { media: null, direct: null, edit_message_id: null, retry_message_id: null, reference: null };
  const events = await engine.execute({ message: "hi", task_id: "nulls", ...body });
  expect(events.at(-1)?.data["phase"]).toBe("completed");
});

test("an edit replaces the text of a message and forgets everything after it", async () => {
  const started = await engine.execute({ message: "first try", task_id: "edit" });
  await engine.execute({ message: "next", task_id: "edit" });
  const id = started[0]?.data["message_id"];
  const events = await engine.execute({
    message: "second attempt here",
    task_id: "edit",
    edit_message_id: id,
  });
  expect(toText(events)).toContain("message 1 of this thread and it has 3 words");
  expect(await readThread("edit")).toMatchObject([
    { message_id: id, role: "user", text: "second attempt here" },
    { message_id: events.at(-1)?.data["message_id"], role: "assistant", text: toText(events) },
  ]);
});

test("a request cannot edit an answer or name a message of another thread", async () => {
  const events = await engine.execute({ message: "mine", task_id: "edit-answer" });
  const answerId = events.at(-1)?.data["message_id"];
  const base = { message: "x", task_id: "edit-answer" };
  expect((await engine.post("/execute", { ...base, edit_message_id: answerId })).status).toBe(400);
  const userId = events[0]?.data["message_id"];
  expect(
    (await engine.post("/execute", { message: "x", task_id: "thief", retry_message_id: userId })).status,
  ).toBe(400);
  expect(await readThread("edit-answer")).toHaveLength(2);
});

test("a retry answers the same message again, whether the request names the message or its answer", async () => {
  const first = await engine.execute({ message: "say it", task_id: "retry" });
  const byMessage = { retry_message_id: first[0]?.data["message_id"] };
  const second = await engine.execute({ message: "ignored", task_id: "retry", ...byMessage });
  const byAnswer = { retry_message_id: second.at(-1)?.data["message_id"] };
  const third = await engine.execute({ message: "ignored", task_id: "retry", ...byAnswer });
  expect(toText(third)).toBe(toText(first));
  expect(await readThread("retry")).toMatchObject([{ text: "say it" }, { text: toText(first) }]);
});

test("a long thread is compacted with a compaction event, and still counts its messages", async () => {
  const compactions: Event[] = [];
  for (let turn = 1; turn <= 12; turn += 1) {
    const events = await engine.execute({
      message: `note ${turn}`,
      task_id: "long",
      reference: { words: 1 },
    });
    compactions.push(...events.filter((event) => event.type === "compaction_event"));
  }
  expect(compactions.map((event) => event.data)).toEqual([
    { task_id: "long", messages_removed: 12, messages_kept: 9 },
  ]);
  const text = toText(await engine.execute({ message: "and now", task_id: "long" }));
  expect(text).toContain(
    'message 13 of this thread and it has 2 words. The message before it was: "note 12".',
  );
});

test("failWith ends the turn with an error event in the middle of the text, and frees the task", async () => {
  const events = await engine.execute({
    message: "hi",
    task_id: "fail",
    reference: { words: 6, failWith: "NO_LUCK" },
  });
  const data = { error: "NO_LUCK", message: expect.any(String) };
  expect(events.at(-1)).toEqual({ type: "error", id: expect.any(String), data });
  expect(events.filter((event) => event.type === "text_delta")).toHaveLength(3);
  expect(events.filter((event) => event.type === "thread_lifecycle")).toHaveLength(1);
  expect(await readThread("fail")).toMatchObject([{ role: "user", text: "hi" }]);
  const next = toText(await engine.execute({ message: "again", task_id: "fail" }));
  expect(next).toContain('message 2 of this thread and it has 1 words. The message before it was: "hi".');
});

test("a second turn of a busy task is 409, other tasks are free, and the end frees the task at once", async () => {
  const turn = await engine.open({ message: "wait", task_id: "busy", reference: { askHuman: true } });
  await readUntil(turn, "hitl_request");
  expect(await engine.post("/execute", { message: "x", task_id: "busy" })).toMatchObject({
    status: 409,
    body: { error: "TASK_BUSY" },
  });
  expect((await engine.execute({ message: "x", task_id: "idle" })).at(-1)?.data["phase"]).toBe("completed");
  await engine.post("/hitl/respond", { task_id: "busy", answer: "yes" });
  const end = (await readUntil(turn, "thread_lifecycle")).at(-1);
  const next = await engine.execute({ message: "x", task_id: "busy" });
  for (const event of [end, next.at(-1)]) expect(event?.data["phase"]).toBe("completed");
  expect(await readAll(turn)).toEqual([]);
});

test("a turn whose reader left runs to its end, keeps its task busy until then, and stores the answer", async () => {
  const reader = new AbortController();
  const turn = await engine.open(
    { message: "bye", task_id: "left", reference: { askHuman: true } },
    reader.signal,
  );
  await readUntil(turn, "hitl_request");
  reader.abort();
  await expect(turn.next()).rejects.toThrow();
  expect((await engine.post("/execute", { message: "x", task_id: "left" })).status).toBe(409);
  expect((await engine.post("/hitl/respond", { task_id: "left", answer: "go on" })).status).toBe(200);
  await expect.poll(async () => (await readThread("left")).length).toBe(2);
  expect((await readThread("left")).at(-1)?.text).toContain('A human answered: "go on".');
});

test("a turn ends even if its reader leaves without reading anything", async () => {
  const reader = new AbortController();
  const response = await fetch(`${engine.url}/execute`, {
    method: "POST",
    headers: { "x-engine-key": ENGINE_KEY },
    body: JSON.stringify({ message: "hi", task_id: "unread", reference: { words: 1_000 } }),
    signal: reader.signal,
  });
  expect(response.status).toBe(200);
  reader.abort();
  await expect.poll(async () => (await readThread("unread")).length).toBe(2);
});

test("a message of many megabytes is answered", async () => {
  const events = await engine.execute({ message: "word ".repeat(2_000_000), task_id: "large" });
  expect(toText(events)).toContain("it has 2000000 words.");
});

test("hostile text is stored unchanged", async () => {
  const message = '\u0000 \ud800 \u2028 😀 "quoted" </script> \r\n data: x';
  await engine.execute({ message, task_id: "hostile \u0000 'id'" });
  expect((await readThread("hostile \u0000 'id'"))[0]?.text).toBe(message);
});

test("fifty tasks run one turn each at the same time", async () => {
  const tasks = Array.from({ length: 50 }, (_, index) => `many-${index}`);
  const turns = await Promise.all(
    tasks.map((task_id) => engine.execute({ message: "hi", task_id, reference: { words: 20 } })),
  );
  for (const [index, events] of turns.entries()) {
    expect(events.at(-1)?.data).toMatchObject({ phase: "completed", task_id: tasks[index] });
    expect(events.filter((event) => event.type === "text_delta")).toHaveLength(20);
  }
});
