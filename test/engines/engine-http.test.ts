import { afterAll, beforeAll, expect, test } from "vitest";
import { probeHealth } from "../../server/engines/engine-http.ts";
import {
  answer,
  type Behaviour,
  behaviours,
  type HostileEngine,
  openHostileEngine,
} from "../rpc/hostile-engine.ts";
import { findFreePort } from "../support/free-port.ts";

let engine: HostileEngine;
beforeAll(async () => {
  engine = await openHostileEngine();
});
afterAll(async () => {
  await engine[Symbol.asyncDispose]();
});

test("200 with status ok is ready, and its body is handed on", async () => {
  const body = { status: "ok", uptime_seconds: 1, subsystems: { brain: "ok" } };
  engine.behave(answer(200, body));
  expect(await probeHealth(engine.url, { timeoutMs: 5_000 })).toEqual({ ready: true, body });
});

const notReady: [string, Behaviour, RegExp][] = [
  ["another status in the body", answer(200, { status: "starting" }), /200.*starting/],
  ["another code, whatever the body says", answer(503, { status: "ok" }), /503/],
  ["another success code", answer(204, { status: "ok" }), /204/],
  ["a redirect", (response) => response.writeHead(302, { location: "/elsewhere" }).end(), /302/],
  ["JSON that is no object", answer(200, null), /null/],
  ["HTML", behaviours.html, /It works/],
  ["an empty body", behaviours.emptyBody, /empty/],
  ["half an answer", behaviours.halfAResponse, /./],
  ["ten megabytes", behaviours.tenMegabytes, /longer than 65536/],
  ["a connection that breaks", behaviours.crashes, /./],
  ["something that is not HTTP", behaviours.notHttp, /./],
];
test.each(notReady)("%s is not ready, and says why", async (_what, behaviour, why) => {
  engine.behave(behaviour);
  const probe = await probeHealth(engine.url, { timeoutMs: 5_000 });
  expect(probe).toEqual({ ready: false, why: expect.stringMatching(why) });
});

test.each(["nothing", "stallsMidway"] as const)(
  "an engine that gives %s in time is not ready",
  async (how) => {
    engine.behave(behaviours[how]);
    const probe = await probeHealth(engine.url, { timeoutMs: 200 });
    expect(probe).toEqual({ ready: false, why: "no answer within 200 ms" });
  },
);

test("nobody there, no url and a probe that is given up are not ready, and none of them throws", async () => {
  const port = await findFreePort();
  const signal = AbortSignal.abort();
  for (const probing of [
    probeHealth(`http://127.0.0.1:${port}`, { timeoutMs: 5_000 }),
    probeHealth("no url", { timeoutMs: 5_000 }),
    probeHealth(engine.url, { timeoutMs: 5_000, signal }),
  ]) {
    expect(await probing).toMatchObject({ ready: false });
  }
});
