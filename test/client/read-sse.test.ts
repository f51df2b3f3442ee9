import { describe, expect, test } from "vitest";
import { createClient } from "../../client/index.ts";
import { readSse } from "../../client/read-sse.ts";
import { CONTENT_TYPES, cutEverywhere, EVENT_STREAM_CASES } from "../support/event-stream-cases.ts";
import { CONNECTED, openFakeService, RETURN, toEnd, toEvent, toSse } from "./fake-service.ts";

const silence = { silenceMs: 60_000, onSilence: () => {} };

describe("the client reads a stream as the standard says, wherever it is cut", () => {
  test.each(EVENT_STREAM_CASES)("$title", async ({ stream, messages }) => {
    for (const pieces of cutEverywhere(stream)) {
      const seen: unknown[] = [];
      for await (const { event, data, id } of readSse(ReadableStream.from(pieces), silence)) {
        seen.push({ type: event ?? "message", data, id });
      }
      expect(seen, pieces.map(String).join("|")).toEqual(messages);
    }
  });
});

describe("an answer is a stream if its content type says so", () => {
  test.each(CONTENT_TYPES)("%j: %s", async (contentType, isEventStream) => {
    await using service = await openFakeService(({ response }) => {
      response.writeHead(200, { "content-type": contentType });
      response.end(
        `${CONNECTED}${toSse({ lastSeq: 1, events: [toEvent(1, "text_delta", { text: "ä" })] })}` +
          `${toSse({ lastSeq: 2, events: [], end: toEnd(2) })}${RETURN}`,
      );
    });
    const client = createClient({ url: service.url, key: "k", retry: { streamForMs: 0, callForMs: 0 } });
    const turn = client.execute({ userId: "ada", request: { message: "hi", taskId: "t" } });
    const reading = turn.text();
    if (isEventStream) await expect(reading).resolves.toBe("ä");
    else await expect(reading).rejects.toMatchObject({ reason: "UNEXPECTED_ANSWER" });
    client.close();
  });
});
