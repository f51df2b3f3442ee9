import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { Agent, request, type IncomingMessage } from "node:http";
import { createParser, type EventSourceMessage } from "eventsource-parser";
import { expect } from "vitest";
import { openShortWire } from "../../client/short-wire.ts";
import { openRaw, type Raw, threeTokens, toBody } from "./open-raw.ts";

/** Turns that are cut at the same time. */
const AT_ONCE = 8;

interface Reading {
  /** undefined: the cut came before the head. */
  status: number | undefined;
  events: EventSourceMessage[];
  turnId: string | undefined;
  isWhole: boolean;
}

/** Sends the request through the wire. What arrives before a cut counts. */
async function read(
  key: string,
  url: string,
  init: { method: string; headers: object; body?: string },
): Promise<Reading> {
  const reading: Reading = { status: undefined, events: [], turnId: undefined, isWhole: false };
  const agent = new Agent();
  const headers = { authorization: `Bearer ${key}`, ...init.headers };
  const sent = request(url, { method: init.method, headers, agent });
  sent.on("error", () => {});
  sent.end(init.body);
  try {
    const [response] = (await once(sent, "response")) as [IncomingMessage];
    reading.status = response.statusCode;
    reading.turnId = String(response.headers["x-turn-id"]);
    const parser = createParser({ onEvent: (event) => reading.events.push(event) });
    for await (const chunk of response.setEncoding("utf8")) parser.feed(String(chunk));
    reading.isWhole = true;
  } catch {
    // The cut.
  } finally {
    agent.destroy();
  }
  if (reading.status !== undefined) expect(reading.status).toBe(200);
  return reading;
}

/** Starts a turn over a connection that breaks after so many bytes of the answer, and reads the rest as clients do. */
async function readCut(raw: Raw, bytes: number): Promise<{ ids: string[]; task: string; isCut: boolean }> {
  await using wire = await openShortWire(raw.api.url, bytes);
  const [turnId, task] = [randomUUID(), `task-${bytes}`];
  const start = async (url: string) =>
    read(raw.key, `${url}/v1/engines/ada/execute`, {
      method: "POST",
      headers: { "content-type": "application/json", "idempotency-key": turnId },
      body: JSON.stringify(toBody(task)),
    });
  const first = await start(wire.url);
  const ids = first.events.map(({ id }) => id ?? "");
  const isEnded = first.events.at(-1)?.event === "enginehouse.end";
  if (isEnded) return { ids, task, isCut: !first.isWhole };
  const cursor = ids.at(-1);
  // Without a head, it is unknown whether the turn began: send the same request again.
  const rest =
    first.turnId === undefined
      ? await start(raw.api.url)
      : await read(raw.key, `${raw.api.url}/v1/turns/${turnId}/events`, {
          method: "GET",
          headers: cursor === undefined ? {} : { "last-event-id": cursor },
        });
  return { ids: [...ids, ...rest.events.map(({ id }) => id ?? "")], task, isCut: true };
}

/**
 * Starts turns over connections that break after some bytes of the answer: after `step` bytes, after twice as many, up to
 * the whole answer. Expects that each turn is read gapless and started once. Returns how long an answer is.
 */
export async function cutTurns(step: number): Promise<number> {
  await using raw = await openRaw();
  const starts = new Map<string, number>();
  raw.api.behave("/execute", (response, sent, body) => {
    const { task_id: taskId } = JSON.parse(body) as { task_id: string };
    starts.set(taskId, (starts.get(taskId) ?? 0) + 1);
    threeTokens(response, sent, body);
  });
  let bytes = 0;
  let isDone = false;
  const work = async () => {
    while (!isDone) {
      bytes += step;
      const { ids, task, isCut } = await readCut(raw, bytes);
      expect(ids, task).toEqual(["1", "2", "3", "4", "5", "6"]);
      expect(starts.get(task), task).toBe(1);
      if (!isCut) isDone = true;
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return bytes;
}
