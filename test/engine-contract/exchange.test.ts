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

test("200 with status ok is ready, and its body is handed on", async () => {
  const body = { status: "ok", uptime_seconds: 1, subsystems: { brain: "ok" } };
  engine.behave(answer(200, body));
  expect(await probeHealth(connections, engine.url, { timeoutMs: 5_000 })).toEqual({ ready: true, body });
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
  const probe = await probeHealth(connections, engine.url, { timeoutMs: 5_000 });
  expect(probe).toEqual({ ready: false, why: expect.stringMatching(why) });
});

test.each(["nothing", "stallsMidway"] as const)(
  "an engine that gives %s in time is not ready",
  async (how) => {
    engine.behave(behaviours[how]);
    const probe = await probeHealth(connections, engine.url, { timeoutMs: 200 });
    expect(probe).toEqual({ ready: false, why: "no answer within 200 ms" });
  },
);

test("nobody there, no url and a probe that is given up are not ready, and none of them throws", async () => {
  const port = await takePort();
  const signal = AbortSignal.abort();
  for (const probing of [
    probeHealth(connections, `http://127.0.0.1:${port}`, { timeoutMs: 5_000 }),
    probeHealth(connections, "no url", { timeoutMs: 5_000 }),
    probeHealth(connections, engine.url, { timeoutMs: 5_000, signal }),
  ]) {
    expect(await probing).toMatchObject({ ready: false });
  }
});

/** An engine that counts its connections, and says about keeping them what it is told to. */
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
      signal: AbortSignal.timeout(5_000),
    });
  const close = async () => {
    server.closeAllConnections();
    server.close();
    await once(server, "close");
  };
  return { url, post, count: () => opened, [Symbol.asyncDispose]: close };
}

describe("a connection", () => {
  test("is used again for as long as the engine has announced to keep it", async () => {
    await using counting = await openCounting(60);
    await probeHealth(connections, counting.url, { timeoutMs: 5_000 });
    for (let call = 0; call < 5; call += 1) expect(await counting.post()).toMatchObject({ status: 200 });
    // The second is for a call that comes before the first has been given back.
    expect(counting.count()).toBeLessThanOrEqual(2);
  });

  test("is nobody else's where the engine announces too little, or was never asked", async () => {
    await using brief = await openCounting(1);
    await probeHealth(connections, brief.url, { timeoutMs: 5_000 });
    for (let call = 0; call < 5; call += 1) expect(await brief.post()).toMatchObject({ status: 200 });
    expect(brief.count()).toBe(6);
    await using unknown = await openCounting(60);
    for (let call = 0; call < 5; call += 1) expect(await unknown.post()).toMatchObject({ status: 200 });
    expect(unknown.count()).toBe(5);
  });
});
