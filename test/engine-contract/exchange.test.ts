import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { EngineConnections } from "../../server/engine-contract/connections.ts";
import { exchangeWithEngine } from "../../server/engine-contract/exchange.ts";
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
  ["another status in the body", answer(200, { status: "starting" }), /200.*starting/],
  ["another code with status ok in the body", answer(503, { status: "ok" }), /503/],
  ["another success code", answer(204, { status: "ok" }), /204/],
  ["a redirect", (response) => response.writeHead(302, { location: "/elsewhere" }).end(), /302/],
  ["JSON that is not an object", answer(200, null), /null/],
  ["HTML", behaviours.html, /It works/],
  ["an empty body", behaviours.emptyBody, /empty/],
  ["half an answer", behaviours.halfAResponse, /./],
  ["ten megabytes", behaviours.tenMegabytes, /longer than 65536/],
  ["a broken connection", behaviours.crashes, /./],
  ["an answer that is not HTTP", behaviours.notHttp, /./],
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
  for (const probing of [
    probeHealth(connections, `http://127.0.0.1:${port}`, { timeoutMs: 20_000 }),
    probeHealth(connections, "no url", { timeoutMs: 20_000 }),
    probeHealth(connections, engine.url, { timeoutMs: 20_000, signal }),
  ]) {
    expect(await probing).toMatchObject({ ready: false });
  }
});

/** An engine that counts its connections and announces the given keep-alive time. */
async function openCounting(keepAliveSeconds: number) {
  let opened = 0;
  const server = createServer((_request, response) => {
    response.setHeader("content-type", "application/json").end('{"status":"ok"}');
  });
  server.keepAliveTimeout = keepAliveSeconds * 1_000;
  server.on("connection", () => (opened += 1));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const post = async () =>
    exchangeWithEngine(connections, url, {
      method: "POST",
      path: "/rpc",
      body: "{}",
      maxBytes: 100,
      signal: AbortSignal.timeout(20_000),
    });
  const close = async () => {
    server.closeAllConnections();
    server.close();
    await once(server, "close");
  };
  return { url, post, count: () => opened, [Symbol.asyncDispose]: close };
}

describe("a connection", () => {
  test("is used again within the time that the engine announced", async () => {
    await using counting = await openCounting(60);
    await probeHealth(connections, counting.url, { timeoutMs: 20_000 });
    for (let call = 0; call < 5; call += 1) expect(await counting.post()).toMatchObject({ status: 200 });
    // A call may open a second connection when the first one is not free again yet.
    expect(counting.count()).toBeLessThanOrEqual(2);
  });

  test("is never used again if the engine announced too short a time or was not probed yet", async () => {
    await using brief = await openCounting(1);
    await probeHealth(connections, brief.url, { timeoutMs: 20_000 });
    for (let call = 0; call < 5; call += 1) expect(await brief.post()).toMatchObject({ status: 200 });
    expect(brief.count()).toBe(6);
    await using unknown = await openCounting(60);
    for (let call = 0; call < 5; call += 1) expect(await unknown.post()).toMatchObject({ status: 200 });
    expect(unknown.count()).toBe(5);
  });
});
