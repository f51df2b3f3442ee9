import { randomUUID } from "node:crypto";
import type { ServerResponse } from "node:http";
import { EventSource } from "eventsource";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openRaw, parseEvents, type Raw, toBody, write } from "../api/raw/open-raw.ts";
import { findProgram } from "../support/find-program.ts";
import { openNginx } from "./open-nginx.ts";

const program = findProgram("nginx");
/** Default, and what is the default with its name. */
const CONFIGURATIONS = ["", "proxy_buffering on;"];

let raw: Raw;
beforeAll(async () => {
  raw = await openRaw();
});
afterAll(async () => raw[Symbol.asyncDispose]());

/** The next turn's events, sent one by one by the test. */
function openEngine() {
  const asked = Promise.withResolvers<ServerResponse>();
  raw.api.behave("/execute", (response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.flushHeaders();
    asked.resolve(response);
  });
  return {
    send: async (text: string) => write(await asked.promise, "text_delta", { text }),
    complete: async () => {
      const response = await asked.promise;
      write(response, "thread_lifecycle", { phase: "completed" });
      response.end();
    },
  };
}

async function startTurn(): Promise<string> {
  const turnId = randomUUID();
  const input = { turnId, userId: "ada", request: { message: "hi", taskId: turnId } };
  await raw.api.mutate("turns.start", { key: raw.key, input });
  return turnId;
}

/** Reads text as it arrives. */
function openReading(response: Response) {
  let text = "";
  const ended = (async () => {
    for await (const part of response.body?.pipeThrough(new TextDecoderStream()) ?? []) text += part;
  })();
  return { text: () => text, ids: () => parseEvents(text).map(({ id }) => id), ended };
}

const authorization = () => ({ authorization: `Bearer ${raw.key}` });

describe.skipIf(program === undefined).each(CONFIGURATIONS)("behind nginx with %j", (directives) => {
  test("each event of a started turn arrives when its engine sends it, not at the end", async () => {
    await using nginx = await openNginx({ program: program ?? "", target: raw.api.url, directives });
    const engine = openEngine();
    const response = await fetch(`${nginx.url}/v1/engines/ada/execute`, {
      method: "POST",
      headers: { ...authorization(), "content-type": "application/json" },
      body: JSON.stringify(toBody(randomUUID())),
    });
    // The head arrives although there is no event yet.
    expect([response.status, response.headers.get("content-type")]).toEqual([200, "text/event-stream"]);
    expect(response.headers.get("x-turn-id")).toMatch(/^[0-9a-f-]{36}$/);
    const reading = openReading(response);
    const ids: string[] = [];
    for (const text of ["one", "two", "three", "four"]) {
      await engine.send(text);
      ids.push(String(ids.length + 1));
      await expect.poll(() => reading.ids()).toEqual(ids);
    }
    await engine.complete();
    await reading.ended;
    expect(reading.ids()).toEqual([...ids, "5", "6"]);
  });

  test("an EventSource gets every event once although nginx restarts in mid-stream, and stops after the end", async () => {
    await using nginx = await openNginx({ program: program ?? "", target: raw.api.url, directives });
    const engine = openEngine();
    const turnId = await startTurn();
    const source = new EventSource(`${nginx.url}/v1/turns/${turnId}/events`, {
      fetch: async (url, init) => fetch(url, { ...init, headers: { ...init.headers, ...authorization() } }),
    });
    const ids: string[] = [];
    const stopped = Promise.withResolvers<number | undefined>();
    for (const type of ["text_delta", "thread_lifecycle", "enginehouse.end"]) {
      source.addEventListener(type, ({ lastEventId }) => void ids.push(lastEventId));
    }
    source.addEventListener("error", ({ code }) => {
      if (source.readyState === EventSource.CLOSED) stopped.resolve(code);
    });
    const wanted: string[] = [];
    for (let restarts = 0; restarts < 3; restarts += 1) {
      await engine.send("before");
      wanted.push(String(wanted.length + 1));
      await expect.poll(() => ids).toEqual(wanted);
      await nginx.restart();
      // Sent while nobody reads.
      await engine.send("meanwhile");
      wanted.push(String(wanted.length + 1));
    }
    await engine.complete();
    expect(await stopped.promise).toBe(204);
    expect(ids).toEqual([...wanted, "7", "8"]);
    source.close();
  });
});

describe.skipIf(program === undefined)("behind nginx", () => {
  test("refusals keep their status, headers and body", async () => {
    await using nginx = await openNginx({ program: program ?? "", target: raw.api.url });
    const path = `/v1/turns/${randomUUID()}/events`;
    for (const headers of [{}, authorization()]) {
      const direct = await fetch(`${raw.api.url}${path}`, { headers });
      const proxied = await fetch(`${nginx.url}${path}`, { headers });
      expect(proxied.status).toBe(direct.status);
      expect(proxied.headers.get("www-authenticate")).toBe(direct.headers.get("www-authenticate"));
      const { error } = (await proxied.json()) as { error: { reason: string } };
      expect(error.reason).toBe("authorization" in headers ? "TURN_NOT_FOUND" : "INVALID_KEY");
    }
  });

  test("a turn that is silent for longer than nginx waits stays open", async () => {
    const directives = "proxy_read_timeout 20s;";
    await using nginx = await openNginx({ program: program ?? "", target: raw.api.url, directives });
    const engine = openEngine();
    const turnId = await startTurn();
    const response = await fetch(`${nginx.url}/v1/turns/${turnId}/events`, { headers: authorization() });
    const reading = openReading(response);
    // The first one comes at once, the others after 15 s of silence each.
    await expect.poll(() => reading.text(), { timeout: 120_000 }).toBe(":\n\n:\n\n:\n\n");
    await engine.complete();
    await reading.ended;
    expect(reading.ids()).toEqual(["1", "2"]);
  });
});
