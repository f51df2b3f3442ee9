import { randomUUID } from "node:crypto";
import { expect } from "vitest";
import type { Client } from "../../client/index.ts";
import { openShortWire } from "../client/short-wire.ts";
import { openRecordedSource } from "./recorded-source.ts";

const range = (count: number) => Array.from({ length: count }, (_, index) => index + 1);

export function toChat(
  gatewayUrl: string,
  query: { message: string; turn?: string; thread?: string },
): string {
  const defaults = { turn: randomUUID(), thread: randomUUID() };
  return `${gatewayUrl}/chat?${new URLSearchParams({ ...defaults, ...query }).toString()}`;
}

/** A browser follows a turn through a connection that breaks again and again. */
export async function expectEachEventOnce(gatewayUrl: string): Promise<void> {
  await expectEachEventOnceAt(toChat(gatewayUrl, { message: "hello" }));
}

/** The same for the address of any EventSource. */
export async function expectEachEventOnceAt(address: string): Promise<void> {
  const { origin, pathname, search } = new URL(address);
  await using wire = await openShortWire(origin, 1_200);
  using source = openRecordedSource(wire.url + pathname + search);
  // 204 stops an EventSource for good.
  expect(await source.closed).toBe(204);
  expect(source.events.map(({ seq }) => seq)).toEqual(range(source.events.length));
  expect(source.events.at(-1)).toMatchObject({ type: "enginehouse.end" });
  expect(JSON.parse(source.events.at(-1)?.data ?? "")).toMatchObject({ status: "completed", reason: null });
  const answer = source.events.filter(({ type }) => type === "text_delta").map(({ data }) => data);
  expect(answer.map((data) => (JSON.parse(data) as { text: string }).text).join("")).toMatch(
    /^This is message 1 /,
  );
  expect(source.connections).toBeGreaterThan(2);
}

/** Gives the status and the body of a refusal, as `fetch` and as an EventSource see it. */
export async function expectRefusals(gatewayUrl: string, client: Client): Promise<void> {
  const thread = randomUUID();
  const reference = { words: 10_000, delayMs: 50 };
  const turn = client.execute({ userId: "ada", request: { message: "wait", taskId: thread, reference } });
  for await (const _event of turn) break;
  const refused = await fetch(toChat(gatewayUrl, { message: "too soon", thread }));
  expect(refused.headers.get("content-type")).toMatch(/^application\/json/);
  expect([refused.status, await refused.json()]).toEqual([
    409,
    {
      error: {
        reason: "TURN_IN_PROGRESS",
        message: "the message before this one is not finished: wait for it, or cancel it",
        requestId: expect.any(String),
        retryAfterMs: expect.any(Number),
      },
    },
  ]);
  using source = openRecordedSource(toChat(gatewayUrl, { message: "too soon", thread }));
  expect(await source.closed).toBe(409);
  await turn.cancel();
  const invalid = await fetch(toChat(gatewayUrl, { message: "" }));
  expect([invalid.status, await invalid.json()]).toMatchObject([400, { error: { reason: "INVALID_INPUT" } }]);
  const unknown = await fetch(toChat(gatewayUrl, { message: "x" }), { headers: { "last-event-id": "7" } });
  expect([unknown.status, await unknown.json()]).toMatchObject([
    404,
    { error: { reason: "TURN_NOT_FOUND" } },
  ]);
}
