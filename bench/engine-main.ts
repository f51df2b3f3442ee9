import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { isLoad, readSharedClock, TIME_MARK, type Load } from "./load.ts";

/*
 * An engine that sends the load of a request and does nothing else, so that a benchmark measures only the relay:
 *
 *   POST /execute {…, load} ─▶ thread_lifecycle started ─▶ POST /release ─▶ chunks at their pace ─▶ completed
 */

interface Stream {
  response: ServerResponse;
  load: Load;
  chunk: Buffer;
  sent: number;
  nextAt: number;
}

const TICK_MS = 1;
const POLL_MS = 5;
const startedAt = performance.now();
/** Streams that wait for `POST /release`. */
const held = new Set<Stream>();
const flowing = new Set<Stream>();

const server = createServer((request, response) => {
  answer(request, response).catch((error: unknown) => {
    process.stderr.write(`${String(error)}\n`);
    response.destroy();
  });
});
// A benchmark opens thousands of streams at once.
server.listen({ port: Number(process.env["ENGINE_PORT"]), host: process.env["ENGINE_HOST"], backlog: 4_096 });
server.keepAliveTimeout = 60_000;
setInterval(sendDue, TICK_MS);
for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => process.exit(0));

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const body = await readBody(request);
  switch (request.url) {
    case "/health": {
      const uptime_seconds = (performance.now() - startedAt) / 1_000;
      return sendJson(response, { status: "ok", uptime_seconds, subsystems: {} });
    }
    case "/rpc":
      return sendJson(response, { result: { ok: true } });
    case "/release":
      await untilHeld((JSON.parse(body) as { streams: number }).streams);
      return sendJson(response, { released: release() });
    case "/execute":
      return startStream(response, JSON.parse(body) as Record<string, unknown>);
    default:
      response.writeHead(404).end();
  }
}

async function readBody(request: IncomingMessage): Promise<string> {
  request.setEncoding("utf8");
  let body = "";
  for await (const chunk of request) body += String(chunk);
  return body;
}

function sendJson(response: ServerResponse, value: unknown): void {
  const text = JSON.stringify(value);
  response.writeHead(200, { "content-type": "application/json", "content-length": Buffer.byteLength(text) });
  response.end(text);
}

function startStream(response: ServerResponse, body: Record<string, unknown>): void {
  const load = body["load"];
  if (!isLoad(load)) throw new Error("the request has no valid load");
  response.writeHead(200, { "content-type": "text/event-stream" });
  response.write(toEvent("thread_lifecycle", { phase: "started", task_id: body["task_id"] }));
  const chunk = Buffer.from(toTextEvents("a few words ", load));
  const stream = { response, load, chunk, sent: 0, nextAt: performance.now() };
  (load.isHeld ? held : flowing).add(stream);
  response.once("close", () => {
    held.delete(stream);
    flowing.delete(stream);
  });
}

/** Waits for `count` held streams: the service may answer its caller before the engine has received the request. */
async function untilHeld(count: number): Promise<void> {
  while (held.size < count) await sleep(POLL_MS);
}

/** Starts all held streams, spread evenly over one interval: real engines do not send at the same moment. */
function release(): number {
  const now = performance.now();
  const count = held.size;
  let index = 0;
  for (const stream of held) {
    stream.nextAt = now + (stream.load.intervalMs * index) / count;
    index += 1;
    flowing.add(stream);
  }
  held.clear();
  return count;
}

function sendDue(): void {
  const now = performance.now();
  for (const stream of flowing) {
    if (stream.nextAt <= now && !stream.response.writableNeedDrain) sendChunk(stream);
  }
}

function sendChunk(stream: Stream): void {
  if (stream.sent === stream.load.chunks) {
    flowing.delete(stream);
    stream.response.end(toEvent("thread_lifecycle", { phase: "completed" }));
    return;
  }
  stream.response.write(stream.load.isTimed === true ? toTimedChunk(stream.load) : stream.chunk);
  stream.sent += 1;
  stream.nextAt += stream.load.intervalMs;
}

function toTimedChunk(load: Load): string {
  return toTextEvents(`${TIME_MARK}${Math.round(readSharedClock() * 1_000)}`, load);
}

function toTextEvents(text: string, { eventsPerChunk }: Load): string {
  return toEvent("text_delta", { text }).repeat(eventsPerChunk);
}

function toEvent(type: string, data: object): string {
  return `event: ${type}\ndata: ${JSON.stringify(data)}\n\n`;
}
