// An engine as a process. A turn's message is JSON: its stages. Each stage sends events with growing numbers. The first
// stage begins at once, each other one after a further call of `skill.next`. The turn completes after its last stage.
import { EventEmitter, once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { env } from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import type { Stage } from "./stages.ts";

const stages = { reached: 0, steps: new EventEmitter().setMaxListeners(0) };

async function play(response: ServerResponse, turn: readonly Stage[]): Promise<void> {
  response.writeHead(200, { "content-type": "text/event-stream" });
  response.write('event: thread_lifecycle\ndata: {"phase":"started"}\n\n');
  const left = new Promise<void>((resolve) => response.once("close", resolve));
  // That was the first event.
  let seq = 1;
  for (const [index, { events, bytes, perPiece, intervalMs }] of turn.entries()) {
    while (stages.reached < index) await once(stages.steps, "next");
    const padding = "x".repeat(bytes);
    for (const last = seq + events; seq < last && !response.destroyed;) {
      let piece = "";
      for (let count = 0; count < perPiece && seq < last; count += 1) {
        seq += 1;
        piece += `event: m\ndata: {"n":${seq},"x":"${padding}"}\n\n`;
      }
      if (!response.write(piece)) await Promise.race([once(response, "drain"), left]);
      if (intervalMs > 0) await sleep(intervalMs);
    }
  }
  response.end('event: thread_lifecycle\ndata: {"phase":"completed"}\n\n');
}

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  if (request.url === "/health") {
    response.end(JSON.stringify({ status: "ok", uptime_seconds: process.uptime(), subsystems: {} }));
    return;
  }
  const body = JSON.parse((await request.toArray()).join("")) as { message: string };
  if (request.url === "/execute") {
    await play(response, JSON.parse(body.message) as Stage[]);
    return;
  }
  if (request.url !== "/rpc") {
    response.writeHead(404).end("{}");
    return;
  }
  stages.reached += 1;
  stages.steps.emit("next");
  response.end(JSON.stringify({ result: stages.reached }));
}

createServer((request, response) => {
  response.on("error", () => {});
  void answer(request, response);
}).listen({ port: Number(env["ENGINE_PORT"]), host: env["ENGINE_HOST"], backlog: 4_096 });
process.on("SIGTERM", () => process.exit(0));
