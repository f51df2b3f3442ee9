import { execFile, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { request, type IncomingMessage, type ServerResponse } from "node:http";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { EventSource } from "eventsource";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { openShortWire } from "../../client/short-wire.ts";
import { findProgram } from "../../support/find-program.ts";
import { openRaw, parseEvents, type Raw, threeTokens, toBody, write } from "./open-raw.ts";

const run = promisify(execFile);
const curl = findProgram("curl");
const python = findProgram("python3");
const READ_TURN = fileURLToPath(new URL("read-turn.py", import.meta.url));

let raw: Raw;
beforeAll(async () => {
  raw = await openRaw();
});
afterAll(async () => raw[Symbol.asyncDispose]());
beforeEach(() => raw.api.behave("/execute", threeTokens));

const ALL = ["1", "2", "3", "4", "5", "6"];
const idsIn = (text: string) => parseEvents(text).map(({ id }) => id);
const authorization = () => `Authorization: Bearer ${raw.key}`;

/** The next turn has one event, until the test has its engine go on. */
function holdTurn(): { finish(): void } {
  let engine: ServerResponse | undefined;
  raw.api.behave("/execute", (response) => {
    engine = response.writeHead(200, { "content-type": "text/event-stream" });
    write(response, "text_delta", { text: "first" });
  });
  return {
    finish: () => {
      if (engine === undefined) throw new Error("the engine got no request");
      for (const text of ["second", "third", "fourth"]) write(engine, "text_delta", { text });
      write(engine, "thread_lifecycle", { phase: "completed" });
      engine.end();
    },
  };
}

test.skipIf(curl === undefined)("curl shows each event as it comes, and resumes", async () => {
  const held = holdTurn();
  const turnId = randomUUID();
  const url = `${raw.api.url}/v1/engines/ada/execute`;
  const headers = [authorization(), "Content-Type: application/json", `Idempotency-Key: ${turnId}`];
  const started = spawn(
    curl ?? "",
    ["-sN", url, ...headers.flatMap((header) => ["-H", header]), "-d", JSON.stringify(toBody("curl"))],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  let text = "";
  started.stdout.setEncoding("utf8").on("data", (part: string) => (text += part));
  await expect.poll(() => idsIn(text)).toEqual(["1"]);
  held.finish();
  const [code] = await once(started, "close");
  expect([code, idsIn(text)]).toEqual([0, ALL]);
  const resumed = async (id: string) =>
    run(curl ?? "", [
      "-sSw%{http_code}",
      `-HLast-Event-ID: ${id}`,
      `-H${authorization()}`,
      `${raw.api.url}/v1/turns/${turnId}/events`,
    ]);
  expect((await resumed("4")).stdout).toMatch(/^id: 5\n[^]*id: 6\n[^]*\n\n200$/);
  expect((await resumed("6")).stdout).toBe("204");
});

test.skipIf(python === undefined)(
  "Python's http.client starts a turn, resumes it after it lost its connection, and is told 204 after the end",
  async () => {
    const { stdout } = await run(python ?? "", [READ_TURN, raw.api.url, raw.key, randomUUID()]);
    const { statuses, seen } = JSON.parse(stdout) as { statuses: number[]; seen: { id: string }[] };
    expect(statuses).toEqual([200, 200, 204]);
    expect(seen.map(({ id }) => id)).toEqual(ALL);
    expect(seen[1]).toEqual({ id: "2", event: "text_delta", data: '{"text":"one"}' });
  },
);

test("an EventSource gets every event once although its connection breaks, and 204 ends it for good", async () => {
  const { headers } = await raw.execute({ body: toBody("source") });
  // Breaks each connection within the second event.
  await using wire = await openShortWire(raw.api.url, 560);
  const source = new EventSource(`${wire.url}/v1/turns/${headers.get("x-turn-id")}/events`, {
    fetch: async (url, init) =>
      fetch(url, { ...init, headers: { ...init.headers, authorization: `Bearer ${raw.key}` } }),
  });
  const ids: string[] = [];
  const ended = Promise.withResolvers<number | undefined>();
  const onEvent = ({ lastEventId }: { lastEventId: string }) => void ids.push(lastEventId);
  for (const type of ["thread_lifecycle", "text_delta", "enginehouse.end"]) {
    source.addEventListener(type, onEvent);
  }
  source.addEventListener("error", ({ code }) => {
    if (source.readyState === EventSource.CLOSED) ended.resolve(code);
  });
  expect(await ended.promise).toBe(204);
  expect(ids).toEqual(ALL);
  const { connections } = wire;
  expect(connections).toBeGreaterThan(2);
  source.close();
});

test("Node's http module reads the events as they come", async () => {
  const held = holdTurn();
  const sent = request(`${raw.api.url}/v1/engines/ada/execute`, {
    method: "POST",
    headers: { authorization: `Bearer ${raw.key}`, "content-type": "application/json" },
    agent: false,
  });
  sent.end(JSON.stringify(toBody("node")));
  const [response] = (await once(sent, "response")) as [IncomingMessage];
  let text = "";
  response.setEncoding("utf8").on("data", (part: string) => (text += part));
  await expect.poll(() => idsIn(text)).toEqual(["1"]);
  held.finish();
  await once(response, "end");
  expect(idsIn(text)).toEqual(ALL);
});
