import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";

/** One call of /execute. The test answers it. */
export interface Call {
  readonly body: Record<string, unknown>;
  readonly text: string;
  readonly headers: IncomingMessage["headers"];
  readonly response: ServerResponse;
  readonly isClosed: boolean;
  /** Sends the status line of a stream. */
  open(): void;
  write(text: string | Buffer): Promise<void>;
  event(type: string, data: unknown): Promise<void>;
  end(): void;
  destroy(): void;
}

/** One call of /execute/replay for a task. */
export interface Replay extends Call {
  readonly taskId: string | null;
  readonly lastEventId: string | undefined;
}

export interface EngineDouble extends AsyncDisposable {
  readonly url: string;
  readonly calls: Call[];
  readonly replays: Replay[];
  /** Runs for each request for a replay. By default there is no such call. */
  onReplay: (replay: Replay) => void;
  /** Runs for each call as it arrives. The default leaves the answer to the test. */
  onCall: (call: Call) => void;
  /** Calls of the optional paths, as they arrive. By default the engine lacks them. */
  readonly optionalCalls: Call[];
  onCancel: (call: Call) => void;
  onRespond: (call: Call) => void;
  /** Waits for the call with this task id. */
  callOf(taskId: unknown): Promise<Call>;
}

export const sse = (type: string, data: unknown) => `event: ${type}\ndata: ${JSON.stringify(data)}\n\n`;
export const started = () => sse("thread_lifecycle", { phase: "started", task_id: "t", turn_id: "x" });
export const completed = () => sse("thread_lifecycle", { phase: "completed", task_id: "t", turn_id: "x" });
export const delta = (text: string) => sse("text_delta", { text });
/** The event with an id. */
export const numbered = (id: number | string, event: string) => `id: ${id}\n${event}`;

/** A real HTTP server in the place of an engine. The test decides its answers. */
export async function openEngineDouble(): Promise<EngineDouble> {
  const calls: Call[] = [];
  const optionalCalls: Call[] = [];
  const replays: Replay[] = [];
  let arrived = Promise.withResolvers<void>();
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("error", () => {});
    response.on("error", () => {});
    request.on("end", () => {
      if (request.method === "GET") {
        const replay = toReplay(request, response);
        replays.push(replay);
        double.onReplay(replay);
        return;
      }
      const call = toCall(request, response, Buffer.concat(chunks).toString("utf8"));
      if (request.url !== "/execute") {
        optionalCalls.push(call);
        if (request.url === "/execute/cancel") double.onCancel(call);
        else if (request.url === "/hitl/respond") double.onRespond(call);
        else answerJson(404)(call);
        return;
      }
      calls.push(call);
      double.onCall(call);
      arrived.resolve();
      arrived = Promise.withResolvers();
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("a TCP server without a port");
  const double: EngineDouble = {
    url: `http://127.0.0.1:${address.port}`,
    calls,
    optionalCalls,
    replays,
    onCall: () => {},
    onReplay: refuse(404),
    onCancel: answerJson(404),
    onRespond: answerJson(404),
    callOf: async (taskId) => {
      for (;;) {
        const call = calls.find((one) => one.body["task_id"] === taskId);
        if (call) return call;
        await arrived.promise;
      }
    },
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
  return double;
}

/** Answers with this status and no stream. */
export function refuse(status: number): (call: Call) => void {
  return ({ response }) => {
    response.writeHead(status, { "content-type": "application/json" });
    response.end(JSON.stringify({ error: `HTTP_${status}`, message: "no" }));
  };
}

function toReplay(request: IncomingMessage, response: ServerResponse): Replay {
  const { searchParams } = new URL(request.url ?? "/", "http://engine");
  return Object.defineProperties(toCall(request, response, "{}"), {
    taskId: { value: searchParams.get("task_id") },
    lastEventId: { value: request.headers["last-event-id"] },
  }) as Replay;
}

function toCall(request: IncomingMessage, response: ServerResponse, text: string): Call {
  let isClosed = false;
  response.on("close", () => {
    isClosed = true;
  });
  const write = async (chunk: string | Buffer) =>
    new Promise<void>((resolve) => {
      response.write(chunk, () => resolve());
    });
  return {
    body: JSON.parse(text) as Record<string, unknown>,
    text,
    headers: request.headers,
    response,
    get isClosed() {
      return isClosed;
    },
    open: () => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.flushHeaders();
    },
    write,
    event: async (type, data) => write(sse(type, data)),
    end: () => response.end(),
    destroy: () => response.destroy(),
  };
}

/** Answers with a status and a JSON body. */
export function answerJson(status: number, body: unknown = {}): (call: Call) => void {
  return ({ response }) => {
    response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
  };
}

/** Answers with a stream of these pieces and a proper end. */
export function streamOf(...pieces: (string | Buffer)[]): (call: Call) => void {
  return (call) => {
    call.open();
    for (const piece of pieces) call.response.write(piece);
    call.end();
  };
}
