import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type Api, openApi, type Reply } from "../api/open-api.ts";
import { answer, type Behaviour, behaviours } from "../rpc/hostile-engine.ts";
import { judgeReply } from "./judge-reply.ts";
import { within } from "./patience.ts";

/** What a call may take beyond the time that it was given. */
const GRACE_MS = 20_000;
const TIMEOUT_MS = 2_000;

let api: Api;
let key: string;
let engineKey: string;
beforeAll(async () => {
  api = await openApi();
  ({ apiKey: key } = await api.register("hostile"));
  const { body } = await api.mutate("engines.provision", { key, input: { userId: "ada" } });
  engineKey = body.result.data.apiKey;
});
beforeEach(() => {
  api.house.runtime.onCall = undefined;
});
afterAll(async () => {
  await api[Symbol.asyncDispose]();
});

const tooLate: Behaviour = (...exchange) => {
  setTimeout(() => answer(200, { result: "late" })(...exchange), TIMEOUT_MS * 2);
};
/** Says all that it knows of the caller. */
const gossip: Behaviour = (response, request) =>
  answer(400, {
    error: "BAD",
    message: JSON.stringify(request.headers),
    details: { headers: request.headers },
  })(response, request, "");
const status = (code: number): Behaviour => answer(code, { error: `E${code}`, message: "no" });
const bare =
  (code: number): Behaviour =>
  (response) =>
    response.writeHead(code).end();

/** What the engine does, and what `rpc.call`, a typed read, and `turns.start` make of it. */
const TABLE: [string, Behaviour, string, string, string | null][] = [
  ["401", status(401), "ENGINE_ERROR", "ENGINE_ERROR", "ENGINE_ERROR"],
  ["401 without a word", bare(401), "ENGINE_ERROR", "ENGINE_ERROR", "ENGINE_ERROR"],
  ["409", status(409), "ENGINE_BUSY", "ENGINE_BUSY", "TURN_IN_PROGRESS"],
  ["409 without a word", bare(409), "ENGINE_BUSY", "ENGINE_BUSY", "TURN_IN_PROGRESS"],
  ["500", status(500), "ENGINE_ERROR", "ENGINE_ERROR", "ENGINE_ERROR"],
  ["500 without a word", bare(500), "ENGINE_ERROR", "ENGINE_ERROR", "ENGINE_ERROR"],
  ["503", status(503), "ENGINE_UNHEALTHY", "ENGINE_UNHEALTHY", "ENGINE_UNHEALTHY"],
  ["HTML", behaviours.html, "ENGINE_ERROR", "ENGINE_ERROR", "ENGINE_ERROR"],
  ["an empty body", behaviours.emptyBody, "ENGINE_ERROR", "ENGINE_ERROR", "ENGINE_ERROR"],
  ["half a response", behaviours.halfAResponse, "ENGINE_ERROR", "ENGINE_ERROR", "ENGINE_ERROR"],
  ["10 MB", behaviours.tenMegabytes, "ENGINE_ERROR", "ENGINE_ERROR", "ENGINE_ERROR"],
  ["JSON beyond all depth", behaviours.deep, "ENGINE_ERROR", "ENGINE_ERROR", "ENGINE_ERROR"],
  ["what is not HTTP", behaviours.notHttp, "ENGINE_ERROR", "ENGINE_ERROR", null],
  ["its caller's key", gossip, "ENGINE_ERROR", "ENGINE_ERROR", "ENGINE_ERROR"],
  ["a broken connection", behaviours.crashes, "OUTCOME_UNKNOWN", "ENGINE_UNHEALTHY", null],
];
/** These take all the time that there is; a turn has much of it, and answers `starting` meanwhile. */
const SLOW: [string, Behaviour][] = [
  ["nothing", behaviours.nothing],
  ["half a response and no more", behaviours.stallsMidway],
  ["its answer too late", tooLate],
];

const call = async (timeoutMs = TIMEOUT_MS): Promise<Reply> =>
  api.mutate("rpc.call", { key, input: { userId: "ada", method: "m", timeoutMs } });
const read = async (): Promise<Reply> => api.query("rpc.quotaState", { key, input: { userId: "ada" } });
const start = async (): Promise<{ turnId: string; reply: Reply }> => {
  const turnId = randomUUID();
  const input = { turnId, userId: "ada", request: { message: "hi", taskId: turnId } };
  return { turnId, reply: await api.mutate("turns.start", { key, input }) };
};

/** A refusal says why, in our words or the engine's, and nothing that the engine was told. */
function judge(reply: Reply, reason: string | null): void {
  expect(judgeReply(reply)).toEqual(reason === null ? [] : [reason]);
  expect(reply.text).not.toContain(engineKey);
  expect(reply.text.length).toBeLessThan(10_000);
}

async function expectUsable(): Promise<void> {
  api.behave("/rpc", answer(200, { result: { fine: true } }));
  expect((await call(10_000)).body.result.data.result).toEqual({ fine: true });
  api.behave("/execute", (response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.end('event: thread_lifecycle\ndata: {"phase":"completed"}\n\n');
  });
  const { turnId } = await start();
  await expect.poll(() => endOf(turnId)).toMatchObject({ status: "completed" });
}

async function endOf(turnId: string): Promise<unknown> {
  return (await api.query("turns.get", { key, input: { turnId } })).body.result.data.end;
}

const getEngine = async (userId: string): Promise<{ engineId: string; generation: number }> =>
  (await api.query("engines.get", { key, input: { userId } })).body.result.data;

/** What the loops do in a service: look, and start it again after a while. */
const expectRunning = async (engineId: string, generation: number) => {
  const look = async () => api.ctx.reconciler.refresh(engineId);
  await expect.poll(look).toMatchObject({ status: "running", generation });
};

describe("an engine that answers", () => {
  test.each(TABLE)("%s: every call is a typed refusal, and the engine stays usable", async (...row) => {
    const [, behaviour, calling, reading, starting] = row;
    api.behave("/rpc", behaviour);
    api.behave("/execute", behaviour);
    judge(await within(10_000 + GRACE_MS, call(10_000)), calling);
    judge(await read(), reading);
    const { turnId, reply } = await start();
    judge(reply, starting);
    if (starting === null) {
      expect(await endOf(turnId)).toMatchObject({ status: "failed", reason: "OUTCOME_UNKNOWN" });
    }
    await expectUsable();
  });

  test.each(SLOW)("%s: a call has its refusal when its time is up", async (_what, behaviour) => {
    api.behave("/rpc", behaviour);
    judge(await within(TIMEOUT_MS + GRACE_MS, call()), "ENGINE_TIMEOUT");
    await expectUsable();
  });
});

describe("an engine that crashes", () => {
  test("at boot: BOOT_FAILED with its exit code and last words, and the next provision works", async () => {
    api.house.runtime.onCall = async ({ call: name, when, input }) => {
      const container = api.house.runtime.daemon.containers.get(String(input));
      if (name !== "start" || when !== "after" || container === undefined) return;
      api.house.runtime.daemon.write(container, "stderr", "no catalog");
      await api.house.runtime.daemon.end(container, 78);
    };
    const refused = await api.mutate("engines.provision", { key, input: { userId: "boot" } });
    judge(refused, "BOOT_FAILED");
    expect(refused.body.error.message).toMatch(/78[^]*no catalog/);
    api.house.runtime.onCall = undefined;
    const again = await api.mutate("engines.provision", { key, input: { userId: "boot" } });
    expect(again.body.result.data.engine).toMatchObject({ status: "running" });
  });

  test("at boot, without ever getting ready: BOOT_TIMEOUT, and the next provision works", async () => {
    await using hasty = await openApi({ config: { bootTimeoutMs: 1_000 } });
    const { apiKey } = await hasty.register("hasty");
    const { runtime } = hasty.house;
    runtime.onCall = ({ call: name, when, input }) => {
      if (name !== "start" || when !== "after") return;
      runtime.daemon.containers.get(String(input))?.engine?.pause();
    };
    const provision = async () =>
      hasty.mutate("engines.provision", { key: apiKey, input: { userId: "slow" } });
    judge(await within(20_000, provision()), "BOOT_TIMEOUT");
    runtime.onCall = undefined;
    // Only the first boot is to be given up.
    hasty.ctx.config.bootTimeoutMs = 60_000;
    expect((await provision()).body.result.data.engine).toMatchObject({ status: "running" });
  });

  test("in a call: OUTCOME_UNKNOWN, and it is usable once it has been started again", async () => {
    const { engineId, generation } = await getEngine("ada");
    api.behave("/rpc", () => void api.house.runtime.crash(engineId));
    judge(await within(10_000 + GRACE_MS, call(10_000)), "OUTCOME_UNKNOWN");
    await expectRunning(engineId, generation + 1);
    await expectUsable();
  });

  test("in a turn: the turn is interrupted, and it is usable once it has been started again", async () => {
    const { engineId, generation } = await getEngine("ada");
    api.behave("/execute", (response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write('data: "said"\n\n', () => void api.house.runtime.crash(engineId));
    });
    const { turnId, reply } = await start();
    judge(reply, null);
    await expect
      .poll(() => endOf(turnId))
      .toMatchObject({
        status: "interrupted",
        reason: "ENGINE_RESTARTED",
        lastSeq: 2,
        engineMayContinue: false,
      });
    await expectRunning(engineId, generation + 1);
    await expectUsable();
  });
});
