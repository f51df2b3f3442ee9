import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type Api, openApi, type Reply } from "../api/open-api.ts";
import { answer, type Behaviour, behaviours } from "../rpc/hostile-engine.ts";
import { judgeReply } from "./judge-reply.ts";
import { within } from "./patience.ts";

/** How much longer than its own timeout a call may take on a loaded machine. */
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

const answersLate: Behaviour = (...exchange) => {
  setTimeout(() => answer(200, { result: "late" })(...exchange), TIMEOUT_MS * 2);
};
/** Sends back every header of the request. */
const echoesHeaders: Behaviour = (response, request) =>
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

/** The engine's answer, and the expected results of `rpc.call`, a typed read and `turns.start`. */
const TABLE: [string, Behaviour, string, string, string | null][] = [
  ["401", status(401), "ENGINE_ERROR", "ENGINE_ERROR", "ENGINE_ERROR"],
  ["401 without a body", bare(401), "ENGINE_ERROR", "ENGINE_ERROR", "ENGINE_ERROR"],
  ["409", status(409), "ENGINE_BUSY", "ENGINE_BUSY", "TURN_IN_PROGRESS"],
  ["409 without a body", bare(409), "ENGINE_BUSY", "ENGINE_BUSY", "TURN_IN_PROGRESS"],
  ["500", status(500), "ENGINE_ERROR", "ENGINE_ERROR", "ENGINE_ERROR"],
  ["500 without a body", bare(500), "ENGINE_ERROR", "ENGINE_ERROR", "ENGINE_ERROR"],
  ["503", status(503), "ENGINE_UNHEALTHY", "ENGINE_UNHEALTHY", "ENGINE_UNHEALTHY"],
  ["HTML", behaviours.html, "ENGINE_ERROR", "ENGINE_ERROR", "ENGINE_ERROR"],
  ["an empty body", behaviours.emptyBody, "ENGINE_ERROR", "ENGINE_ERROR", "ENGINE_ERROR"],
  ["half a response", behaviours.halfAResponse, "ENGINE_ERROR", "ENGINE_ERROR", "ENGINE_ERROR"],
  ["10 MB", behaviours.tenMegabytes, "ENGINE_ERROR", "ENGINE_ERROR", "ENGINE_ERROR"],
  ["JSON that nests very deeply", behaviours.deep, "ENGINE_ERROR", "ENGINE_ERROR", "ENGINE_ERROR"],
  ["an answer that is not HTTP", behaviours.notHttp, "ENGINE_ERROR", "ENGINE_ERROR", null],
  ["an echo of the request's headers", echoesHeaders, "ENGINE_ERROR", "ENGINE_ERROR", "ENGINE_ERROR"],
  ["a broken connection", behaviours.crashes, "OUTCOME_UNKNOWN", "ENGINE_UNHEALTHY", null],
];
/** These use up the whole timeout. turns.start is not tested: its timeout is long, and it answers `starting` before. */
const SLOW: [string, Behaviour][] = [
  ["nothing", behaviours.nothing],
  ["half a response, then silence", behaviours.stallsMidway],
  ["an answer after the timeout", answersLate],
];

const call = async (timeoutMs = TIMEOUT_MS): Promise<Reply> =>
  api.mutate("rpc.call", { key, input: { userId: "ada", method: "m", timeoutMs } });
const read = async (): Promise<Reply> => api.query("rpc.quotaState", { key, input: { userId: "ada" } });
const start = async (): Promise<{ turnId: string; reply: Reply }> => {
  const turnId = randomUUID();
  const input = { turnId, userId: "ada", request: { message: "hi", taskId: turnId } };
  return { turnId, reply: await api.mutate("turns.start", { key, input }) };
};

/** Expects a typed error with this reason (null: a success), and never the engine key in the reply. */
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

/** Refreshes the engine, as the service's loops do, until it runs again. */
const expectRunning = async (engineId: string, generation: number) => {
  const refresh = async () => api.ctx.reconciler.observeNow(engineId);
  await expect.poll(refresh).toMatchObject({ status: "running", generation });
};

describe("an engine that answers badly", () => {
  test.each(TABLE)("%s: every call gets a typed error, and the engine stays usable", async (...row) => {
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

  test.each(SLOW)(
    "%s: a call fails with ENGINE_TIMEOUT when its timeout passes",
    async (_what, behaviour) => {
      api.behave("/rpc", behaviour);
      judge(await within(TIMEOUT_MS + GRACE_MS, call()), "ENGINE_TIMEOUT");
      await expectUsable();
    },
  );
});

describe("an engine that crashes", () => {
  test("at boot: provision fails with BOOT_FAILED, the exit code and the last log lines, and the next one succeeds", async () => {
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

  test("at boot, without becoming ready: provision fails with BOOT_TIMEOUT, and the next one succeeds", async () => {
    await using impatient = await openApi({ config: { bootTimeoutMs: 1_000 } });
    const { apiKey } = await impatient.register("impatient");
    const { runtime } = impatient.house;
    runtime.onCall = ({ call: name, when, input }) => {
      if (name !== "start" || when !== "after") return;
      runtime.daemon.containers.get(String(input))?.engine?.pause();
    };
    const provision = async () =>
      impatient.mutate("engines.provision", { key: apiKey, input: { userId: "slow" } });
    judge(await within(20_000, provision()), "BOOT_TIMEOUT");
    runtime.onCall = undefined;
    // Only the first boot must time out.
    impatient.ctx.config.bootTimeoutMs = 60_000;
    expect((await provision()).body.result.data.engine).toMatchObject({ status: "running" });
  });

  test("during a call: the call fails with OUTCOME_UNKNOWN, and the restarted engine is usable", async () => {
    const { engineId, generation } = await getEngine("ada");
    api.behave("/rpc", () => void api.house.runtime.crash(engineId));
    judge(await within(10_000 + GRACE_MS, call(10_000)), "OUTCOME_UNKNOWN");
    await expectRunning(engineId, generation + 1);
    await expectUsable();
  });

  test("during a turn: the turn ends as interrupted, and the restarted engine is usable", async () => {
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
