import { randomUUID } from "node:crypto";
import { setImmediate } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { findReason, type Client, type TurnEvent } from "../../client/index.ts";
import { openServiceProcess, type ServiceProcess } from "./service-process.ts";

/** The real service and the real reference engine. */
let service: ServiceProcess;
let client: Client;
beforeAll(async () => {
  service = await openServiceProcess();
  await service.start();
  ({ client } = await service.openProduct("acme"));
  await client.api.engines.provision.mutate({ userId: "ada" });
});
afterAll(async () => {
  client.close();
  await service[Symbol.asyncDispose]();
});

const toInput = (reference: object, taskId: string = randomUUID()) => ({
  userId: "ada",
  request: { message: "hello", taskId, reference },
});
const ENDLESS = { words: 10_000, delayMs: 20 };

test("after a cancel the task takes the next message at once, fifty times in a row", async () => {
  const taskId = randomUUID();
  for (let round = 0; round < 50; round += 1) {
    const turnId = randomUUID();
    await client.api.turns.start.mutate({ turnId, ...toInput(ENDLESS, taskId) });
    const turn = await client.api.turns.cancel.mutate({ turnId });
    expect(turn, `round ${round}`).toMatchObject({
      status: "cancelled",
      end: { reason: "CANCELLED", engineMayContinue: false },
    });
  }
  const text = await client.execute(toInput({}, taskId)).text();
  expect(text).toContain("This is message 51 of this thread");
});

test("a turn that waits for a person is cancelled, and its task takes the next message at once", async () => {
  const taskId = randomUUID();
  const turn = client.execute(toInput({ askHuman: true }, taskId));
  for await (const event of turn) if (event.type === "hitl_request") await turn.cancel();
  expect(await turn.end).toMatchObject({ status: "cancelled", engineMayContinue: false });
  expect(await client.execute(toInput({}, taskId)).text()).toContain("message 2");
});

test("a cancel at any moment of a start frees the task", async () => {
  const taskId = randomUUID();
  for (const loopTurns of [0, 1, 4, 16, 64, 256, 1_024, 4_096]) {
    const turn = client.execute(toInput(ENDLESS, taskId));
    const reading = turn.text();
    for (let count = 0; count < loopTurns; count += 1) await setImmediate();
    expect(await turn.cancel()).toMatchObject({ status: "cancelled", end: { engineMayContinue: false } });
    await reading;
  }
  expect((await client.execute(toInput({}, taskId)).end).status).toBe("completed");
});

test("a person's answer reaches the waiting engine, and the stream continues with it", async () => {
  const turn = client.execute(toInput({ askHuman: true }));
  const events: TurnEvent[] = [];
  for await (const event of turn) {
    events.push(event);
    if (event.type !== "hitl_request") continue;
    await expect(turn.respond({ requestId: "another", answer: "no" })).rejects.toMatchObject({
      engineError: { code: "NO_PENDING_REQUEST" },
    });
    const requestId = event.data.request_id;
    const answer = { requestId, answer: "yes", feedback: "be brief", contentBlocks: [{ type: "text" }] };
    expect(await turn.respond(answer)).toEqual({ status: "resolved" });
  }
  const types = events.map(({ type }) => String(type)).filter((type) => type !== "heartbeat");
  expect(types.slice(types.indexOf("hitl_request"))).toEqual(
    expect.arrayContaining(["hitl_request", "hitl_resolved", "text_delta", "thread_lifecycle"]),
  );
  const text = events.flatMap((event) => (event.type === "text_delta" ? [event.data.text] : [])).join("");
  expect(text).toContain('A human answered: "yes". With feedback: "be brief". With 1 content blocks.');
});

test("an answer by user and task reaches the engine, and a second one finds no question", async () => {
  // The turn goes on for a while after the answer.
  const input = toInput({ askHuman: true, words: 100, delayMs: 20 });
  const turn = client.execute(input);
  const { userId, request } = input;
  for await (const event of turn) {
    if (event.type !== "hitl_request") continue;
    const address = { userId, taskId: request.taskId };
    expect(await client.api.turns.respond.mutate({ ...address, answer: "yes" })).toEqual({
      status: "resolved",
    });
    await expect(turn.respond({ answer: "again" })).rejects.toMatchObject({
      reason: "ENGINE_ERROR",
      engineError: { code: "NO_PENDING_REQUEST" },
      isTransient: false,
    });
  }
  expect(await turn.end).toMatchObject({ status: "completed" });
  await expect(turn.respond({ answer: "late" })).rejects.toMatchObject({ reason: "TURN_NOT_FOUND" });
});

test("a stop that may not wait says which turn holds the engine and that it waits for a person", async () => {
  const turn = client.execute(toInput({ askHuman: true }));
  for await (const event of turn) {
    if (event.type !== "hitl_request") continue;
    const stopping = client.api.engines.stop.mutate({ userId: "ada", whenBusy: "reject" });
    const error: unknown = await stopping.catch((thrown: unknown) => thrown);
    expect(findReason(error)).toBe("ENGINE_BUSY");
    expect(String(error)).toContain("the engine is in use by 1 turn (");
    expect(String(error)).toMatch(
      new RegExp(`turn ${turn.turnId} of task ".*": streaming, waiting for a person`),
    );
    await turn.respond({ answer: "yes" });
  }
});

test("a stop waits for a turn whose question is answered meanwhile", async () => {
  await client.api.engines.provision.mutate({ userId: "bob" });
  const turn = client.execute({ ...toInput({ askHuman: true }), userId: "bob" });
  let stopping: Promise<{ status: string }> | undefined;
  for await (const event of turn) {
    if (event.type !== "hitl_request") continue;
    stopping = client.api.engines.stop.mutate({ userId: "bob", deadlineMs: 600_000 });
    // Whether the gate is closed by now does not matter: the answer passes it.
    await turn.respond({ answer: "yes" });
  }
  expect(await turn.end).toMatchObject({ status: "completed" });
  expect(await stopping).toMatchObject({ status: "stopped" });
});
