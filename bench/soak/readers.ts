import { setTimeout as sleep } from "node:timers/promises";
import { EventSource } from "eventsource";
import { createParser, type EventSourceMessage } from "eventsource-parser";
import { createClient, EnginehouseError } from "../../client/index.ts";
import type { Tally } from "./tally.ts";

export interface SoakTurn {
  turnId: string;
  userId: string;
  taskId: string;
  words: number;
  delayMs: number;
}

export interface ReaderContext {
  /** Of a proxy whose connections are cut at random. */
  url: string;
  apiKey: string;
  turn: SoakTurn;
  tally: Tally;
  /** Ends what hangs. */
  signal: AbortSignal;
}

const PATIENCE_MS = 120_000;
const RETRY_MS = 100;
const MESSAGE = "tell me a long story";

/** Starts the turn and reads it with the TypeScript client, which resumes by itself. */
export async function readByClient({ url, apiKey, turn, tally, signal }: ReaderContext): Promise<void> {
  const retry = { callForMs: PATIENCE_MS, streamForMs: PATIENCE_MS, maxDelayMs: 1_000 };
  const client = createClient({ url, key: apiKey, retry });
  const { turnId, userId, taskId, words, delayMs } = turn;
  const request = { message: MESSAGE, taskId, reference: { words, delayMs } };
  try {
    const started = client.execute({ turnId, userId, request, signal });
    for await (const { seq, type, data } of started) tally.event(seq, String(type), data);
    tally.end(await started.end);
  } catch (error) {
    if (!(error instanceof EnginehouseError) || error.end === undefined) tally.trouble = String(error);
    else {
      if (error.gap) tally.gap(error.gap.toSeq);
      tally.end(error.end);
    }
  } finally {
    client.close();
  }
}

/** Starts the turn over the raw route, and comes back with its cursor as often as the connection breaks. */
export async function readByRawRoute(context: ReaderContext): Promise<void> {
  const { tally, signal } = context;
  let hasBegun = false;
  while (!tally.hasEnded && tally.trouble === undefined) {
    try {
      const response = await request(context, hasBegun);
      const isBusy = response.status === 429 || response.status >= 500;
      if (response.status === 200) {
        hasBegun = true;
        await readEvents(response, tally);
      } else if (!isBusy) {
        tally.trouble = `${response.status} ${(await response.text()).slice(0, 300)}`;
      }
    } catch (error) {
      // A cut, or a service that is away.
      if (signal.aborted) tally.trouble = String(error);
    }
    if (!tally.hasEnded && !signal.aborted) await sleep(RETRY_MS * (1 + Math.random()));
  }
}

/** Without a head of a response, it is unknown whether the turn began: then the same request is sent again. */
async function request({ url, apiKey, turn, tally, signal }: ReaderContext, hasBegun: boolean) {
  const headers: Record<string, string> = { authorization: `Bearer ${apiKey}` };
  if (hasBegun) {
    if (tally.lastSeq > 0) headers["last-event-id"] = String(tally.lastSeq);
    return fetch(`${url}/v1/turns/${turn.turnId}/events`, { headers, signal });
  }
  const { taskId, words, delayMs } = turn;
  const body = JSON.stringify({ message: MESSAGE, task_id: taskId, reference: { words, delayMs } });
  const more = { "content-type": "application/json", "idempotency-key": turn.turnId };
  return fetch(`${url}/v1/engines/${turn.userId}/execute`, {
    method: "POST",
    headers: { ...headers, ...more },
    body,
    signal,
  });
}

async function readEvents(response: Response, tally: Tally): Promise<void> {
  const parser = createParser({
    onEvent: ({ id, event, data }: EventSourceMessage) =>
      take(tally, { id: id ?? "", type: event ?? "", data }),
  });
  for await (const text of response.body?.pipeThrough(new TextDecoderStream()) ?? []) parser.feed(text);
}

function take(tally: Tally, { id, type, data }: { id: string; type: string; data: string }): void {
  const parsed: unknown = JSON.parse(data);
  if (type === "enginehouse.end") tally.end(parsed as { status: string; reason: string | null });
  else if (type === "enginehouse.gap") tally.gap((parsed as { toSeq: number }).toSeq);
  else tally.event(Number(id), type, parsed);
}

/** An EventSource has a listener for each type. These are all that the reference engine sends in these turns. */
const TYPES = [
  "thread_lifecycle",
  "heartbeat",
  "compaction_event",
  "content_block_start",
  "content_block_stop",
  "thinking_delta",
  "tool_call",
  "tool_result",
  "text_delta",
  "working_memory_update",
  "usage",
  "enginehouse.gap",
  "enginehouse.end",
];

/** Follows a turn that has begun with an EventSource, which comes back by itself. */
export async function readByEventSource({ url, apiKey, turn, tally, signal }: ReaderContext): Promise<void> {
  const source = new EventSource(`${url}/v1/turns/${turn.turnId}/events`, {
    fetch: (input, init) =>
      fetch(input, { ...init, headers: { ...init.headers, authorization: `Bearer ${apiKey}` } }),
  });
  const over = Promise.withResolvers<void>();
  const giveUp = () => {
    tally.trouble = `the EventSource was open until the soak gave up, in state ${source.readyState}`;
    over.resolve();
  };
  signal.addEventListener("abort", giveUp, { once: true });
  for (const type of TYPES) {
    source.addEventListener(type, ({ data, lastEventId }) => {
      take(tally, { id: lastEventId, type, data: String(data) });
      if (tally.hasEnded) over.resolve();
    });
  }
  source.addEventListener("error", ({ code, message }) => {
    if (source.readyState !== source.CLOSED || tally.hasEnded) return;
    tally.trouble = `the EventSource stopped: ${code} ${message}`;
    over.resolve();
  });
  if (signal.aborted) giveUp();
  await over.promise;
  signal.removeEventListener("abort", giveUp);
  source.close();
}
