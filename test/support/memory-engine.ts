import { createHash } from "node:crypto";
import { createServer } from "node:http";
import type { RequestListener, Server } from "node:http";
import { once } from "node:events";
import type { ContainerObservation } from "../../server/runtime/engine-runtime.ts";

/** Makes the server of one "process" of the memory runtime. Called at each start. */
export type MemoryEngineHandler = (
  observation: ContainerObservation,
  environment: Readonly<Record<string, string>>,
) => RequestListener;

/** `/health` is ok from the start; `/rpc` checks the key and echoes the request. */
export const answerAsEngine: MemoryEngineHandler = (_observation, environment) => {
  const startedAt = Date.now();
  return (request, response) => {
    const reply = (status: number, body: unknown) => {
      response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
    };
    if (request.url === "/health") {
      reply(200, { status: "ok", uptime_seconds: (Date.now() - startedAt) / 1000, subsystems: {} });
      return;
    }
    const key = String(request.headers["x-engine-key"] ?? "");
    if (createHash("sha256").update(key).digest("hex") !== environment["ENGINE_KEY_HASH"]) {
      request.resume();
      reply(401, { error: "UNAUTHORIZED", message: "wrong engine key" });
      return;
    }
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      if (request.url !== "/rpc") return reply(404, { error: "NOT_FOUND", message: "no such route" });
      reply(200, { result: JSON.parse(Buffer.concat(chunks).toString() || "null") as unknown });
    });
  };
};

/** A real server on a port of 127.0.0.1. While paused, it accepts requests and answers them after `unpause`. */
export class MemoryEngine {
  readonly #server: Server;
  readonly #port: number;
  #isPaused = false;
  #held: (() => void)[] = [];

  constructor(port: number, listener: RequestListener) {
    this.#port = port;
    this.#server = createServer((request, response) => {
      const answer = () => listener(request, response);
      if (this.#isPaused) this.#held.push(answer);
      else answer();
    });
  }

  /** Rejects when the port cannot be bound. */
  async listen(): Promise<void> {
    this.#server.listen({ port: this.#port, host: "127.0.0.1", exclusive: true });
    await once(this.#server, "listening");
  }

  pause(): void {
    this.#isPaused = true;
  }

  unpause(): void {
    this.#isPaused = false;
    for (const answer of this.#held.splice(0)) answer();
  }

  /** Breaks all connections, as the end of a process does. */
  async close(): Promise<void> {
    const closed = once(this.#server, "close");
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }
}
