// An engine as a process. A turn's message names the flood that the engine sends: `<events> <bytes of each>`, one such
// piece every 20 ms, without an end; or `endless:<text>`, that text and then a line that never ends. Its calls answer a text of `params.bytes` characters.
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { env } from "node:process";

const INTERVAL_MS = 20;

function flood(response: ServerResponse, message: string): void {
  const [events = 1, bytes = 1] = message.split(" ").map(Number);
  const event = `event: text_delta\ndata: ${JSON.stringify({ text: "x".repeat(bytes) })}\n\n`;
  const piece = event.repeat(events);
  response.writeHead(200, { "content-type": "text/event-stream" });
  const timer = setInterval(() => {
    if (!response.writableNeedDrain) response.write(piece);
  }, INTERVAL_MS);
  response.on("close", () => clearInterval(timer));
}

/** As fast as the reader takes it. */
function sendEndlessLine(response: ServerResponse, first: string): void {
  const piece = Buffer.alloc(1024 * 1024, "x");
  const send = () => {
    while (!response.destroyed && response.write(piece));
  };
  response.writeHead(200, { "content-type": "text/event-stream" });
  response.on("drain", send).write(first);
  send();
}

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  if (request.url === "/health") {
    response.end(JSON.stringify({ status: "ok", uptime_seconds: process.uptime(), subsystems: {} }));
    return;
  }
  const body = JSON.parse((await request.toArray()).join("")) as {
    message?: string;
    params?: { bytes?: number };
  };
  const { message = "1 1" } = body;
  if (request.url === "/execute" && message.startsWith("endless:")) {
    sendEndlessLine(response, message.slice("endless:".length));
  } else if (request.url === "/execute") flood(response, message);
  else response.end(JSON.stringify({ result: "r".repeat(body.params?.bytes ?? 1) }));
}

createServer((request, response) => {
  response.on("error", () => {});
  void answer(request, response);
}).listen(Number(env["ENGINE_PORT"]), env["ENGINE_HOST"]);
process.on("SIGTERM", () => process.exit(0));
