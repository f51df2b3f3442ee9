import { afterAll, beforeAll, expect, test } from "vitest";
import { EngineConnections } from "../../server/engine-contract/connections.ts";
import { probeHealth } from "../../server/engine-contract/health.ts";
import {
  answer,
  type Behaviour,
  behaviours,
  type HostileEngine,
  openHostileEngine,
} from "../rpc/hostile-engine.ts";
import { takePort } from "../support/ports.ts";

const connections = new EngineConnections();
let engine: HostileEngine;
beforeAll(async () => {
  engine = await openHostileEngine();
});
afterAll(async () => {
  await connections[Symbol.asyncDispose]();
  await engine[Symbol.asyncDispose]();
});

test("an engine that answers 200 with status ok is ready, and the probe returns the body", async () => {
  const body = { status: "ok", uptime_seconds: 1, subsystems: { brain: "ok" } };
  engine.behave(answer(200, body));
  expect(await probeHealth(connections, engine.url, { timeoutMs: 20_000 })).toEqual({ ready: true, body });
});

const notReady: [string, Behaviour, RegExp][] = [
  ["no status in the body", answer(200, { uptime_seconds: 1 }), /no status: .*"status": "ok"/],
  [
    "another status in the body",
    answer(200, { status: "starting" }),
    /another status: .*starting.*"status": "ok"/,
  ],
  ["another code with status ok in the body", answer(503, { status: "ok" }), /503.*with 200/],
  ["another success code", answer(204, { status: "ok" }), /204.*with 200/],
  ["a status that says that there is no such path", answer(404, {}), /404.*GET \/health must exist/],
  [
    "a redirect",
    (response) => response.writeHead(302, { location: "/elsewhere" }).end(),
    /302.*not followed/,
  ],
  ["JSON that is not an object", answer(200, null), /no JSON object: null.*"status": "ok"/],
  ["HTML", behaviours.html, /text\/html.*It works.*"status": "ok"/],
  ["an empty body", behaviours.emptyBody, /empty/],
  ["half an answer", behaviours.halfAResponse, /not usable/],
  ["ten megabytes", behaviours.tenMegabytes, /longer than 65536/],
  ["a broken connection", behaviours.crashes, /without an answer .*ENGINE_PORT/],
  ["an answer that is not HTTP", behaviours.notHttp, /HTTP\/1\.1/],
  [
    "a key of ours at the cut",
    answer(200, { a: "x".repeat(280), b: `ehe_${"k".repeat(36)}` }),
    /^(?!.*ehe_)/,
  ],
];
test.each(notReady)(
  "an engine whose answer is %s is not ready, and the probe gives the reason",
  async (_what, behaviour, why) => {
    engine.behave(behaviour);
    const probe = await probeHealth(connections, engine.url, { timeoutMs: 20_000 });
    expect(probe).toEqual({ ready: false, why: expect.stringMatching(why) });
  },
);

test.each(["nothing", "stallsMidway"] as const)(
  "an engine that shows the behaviour %s is not ready when the timeout passes",
  async (how) => {
    engine.behave(behaviours[how]);
    const probe = await probeHealth(connections, engine.url, { timeoutMs: 200 });
    expect(probe).toEqual({ ready: false, why: "no answer within 200 ms" });
  },
);

test("a free port, an invalid URL and an aborted probe are not ready, and the probe never throws", async () => {
  const port = await takePort();
  const signal = AbortSignal.abort();
  const nobody = await probeHealth(connections, `http://127.0.0.1:${port}`, { timeoutMs: 20_000 });
  expect(nobody).toEqual({
    ready: false,
    why: expect.stringMatching(/ECONNREFUSED.*ENGINE_PORT.*ORCH_ENGINE_PORT/),
  });
  for (const probing of [
    probeHealth(connections, "no url", { timeoutMs: 20_000 }),
    probeHealth(connections, engine.url, { timeoutMs: 20_000, signal }),
  ]) {
    expect(await probing).toMatchObject({ ready: false });
  }
});
