import { expect, test } from "vitest";
import { openHome, readAll, readUntil, spawnEngine, toText, withoutHeartbeats } from "./spawn-engine.ts";

test("a turn with a question is listed as pending, waits for the answer and continues with it", async () => {
  await using home = await openHome();
  await using engine = await spawnEngine(home);
  const turn = await engine.open({ message: "hi", task_id: "t", reference: { askHuman: true } });
  const asked = (await readUntil(turn, "hitl_request")).at(-1)?.data;
  expect(asked).toEqual({
    request_id: expect.any(String),
    task_id: "t",
    kind: "question",
    question: expect.any(String),
  });
  expect((await engine.get("/hitl/pending")).body).toEqual({
    pending: [{ ...asked, turn_id: expect.any(String), asked_at: expect.any(String) }],
  });
  expect((await engine.get("/health")).body).toMatchObject({
    subsystems: { turns: { waiting_for_human: 1 } },
  });

  const answer = { task_id: "t", answer: "yes", feedback: "be brief", content_blocks: [{}, {}] };
  expect(await engine.post("/hitl/respond", answer)).toEqual({
    status: 200,
    body: { status: "resolved", request_id: asked?.["request_id"] },
  });
  const rest = withoutHeartbeats(await readAll(turn));
  expect(rest[0]).toMatchObject({
    type: "hitl_resolved",
    data: { request_id: asked?.["request_id"], task_id: "t", answer: "yes", feedback: "be brief" },
  });
  expect(toText(rest)).toContain(
    'A human answered: "yes". With feedback: "be brief". With 2 content blocks.',
  );
  expect(rest.at(-1)?.data["phase"]).toBe("completed");
  expect((await engine.get("/hitl/pending")).body).toEqual({ pending: [] });
});

test("an answer that names another question is refused, and leaves the question open", async () => {
  await using home = await openHome();
  await using engine = await spawnEngine(home);
  const turn = await engine.open({ message: "hi", task_id: "t", reference: { askHuman: true } });
  const asked = (await readUntil(turn, "hitl_request")).at(-1)?.data;
  const answer = { task_id: "t", answer: "yes" };
  for (const request_id of ["another", 1, null]) {
    const refused = { status: 422, body: { error: "NO_PENDING_REQUEST" } };
    expect(await engine.post("/hitl/respond", { ...answer, request_id })).toMatchObject(refused);
  }
  const named = { ...answer, request_id: asked?.["request_id"] };
  expect((await engine.post("/hitl/respond", named)).status).toBe(200);
  expect((await readAll(turn)).at(-1)?.data["phase"]).toBe("completed");
});

test("a question accepts one answer: invalid answers are 400 and leave it open, answers without a question are 422", async () => {
  await using home = await openHome();
  await using engine = await spawnEngine(home);
  const nothing = { status: 422, body: { error: "NO_PENDING_REQUEST" } };
  expect(await engine.post("/hitl/respond", { task_id: "t", answer: "yes" })).toMatchObject(nothing);
  const turn = await engine.open({ message: "hi", task_id: "t", reference: { askHuman: true } });
  await readUntil(turn, "hitl_request");
  for (const bad of [{}, { answer: 1 }, { answer: "x", feedback: 1 }, { answer: "x", content_blocks: "x" }]) {
    expect((await engine.post("/hitl/respond", { task_id: "t", ...bad })).status).toBe(400);
  }
  const answers = await Promise.all(
    ["a", "b"].map((answer) => engine.post("/hitl/respond", { task_id: "t", answer })),
  );
  expect(answers.map((reply) => reply.status).sort((a, b) => a - b)).toEqual([200, 422]);
  expect((await readAll(turn)).at(-1)?.data["phase"]).toBe("completed");
});
