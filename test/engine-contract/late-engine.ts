import { once } from "node:events";
import { createServer, type Socket } from "node:net";

export const LATE = "late";

export interface LateEngine extends AsyncDisposable {
  readonly url: string;
  /** How many second answers the engine has sent. */
  readonly lateAnswers: number;
  /** How many connections the engine has accepted. */
  readonly connections: number;
  readonly openConnections: number;
}

/**
 * An engine that keeps its connections open and answers every request twice. The second answer says `LATE` and follows
 * up to 20 ms later, or in the same packet. Every other answer is chunked.
 */
export async function openLateEngine(): Promise<LateEngine> {
  let lateAnswers = 0;
  let connections = 0;
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    connections += 1;
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket)).on("error", () => {});
    let text = "";
    socket.on("data", (chunk) => {
      text += chunk.toString("latin1");
      for (;;) {
        const request = takeRequest(text);
        if (request === undefined) return;
        text = text.slice(request.length);
        answerTwice(request, socket);
      }
    });
  });
  const answerTwice = ({ path, nonce }: Request, socket: Socket) => {
    const isChunked = connections % 2 === 0;
    const first = toAnswer(path, { nonce, isChunked });
    const second = toAnswer(path, { nonce: LATE, isChunked });
    lateAnswers += 1;
    const delayMs = Math.floor(Math.random() * 22) - 1;
    if (delayMs < 0) {
      socket.write(first + second);
      return;
    }
    socket.write(first);
    setTimeout(() => {
      if (!socket.destroyed) socket.write(second);
    }, delayMs);
  };
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("the server has no TCP port");
  return {
    url: `http://127.0.0.1:${address.port}`,
    get lateAnswers() {
      return lateAnswers;
    },
    get connections() {
      return connections;
    },
    get openConnections() {
      return sockets.size;
    },
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
}

interface Request {
  path: string;
  nonce: string;
  length: number;
}

/** The first whole request of the text. Each call names itself in its body. */
function takeRequest(text: string): Request | undefined {
  const head = text.indexOf("\r\n\r\n");
  if (head < 0) return undefined;
  const length = head + 4 + Number(/content-length: (\d+)/i.exec(text.slice(0, head))?.[1] ?? 0);
  if (text.length < length) return undefined;
  const nonce = /nonce":"(\w+)"/.exec(text.slice(head, length))?.[1] ?? "";
  return { path: text.split(" ", 2)[1] ?? "", nonce, length };
}

/** A health probe carries no name. So the first answer to a probe is not ready, and the late one is. */
function toAnswer(path: string, { nonce, isChunked }: { nonce: string; isChunked: boolean }): string {
  if (path === "/execute") {
    return toMessage(`event: text_delta\ndata: {"text":"${nonce}"}\n\n`, "text/event-stream", isChunked);
  }
  const body = path === "/health" ? { status: nonce === LATE ? "ok" : "starting" } : { result: nonce };
  return toMessage(JSON.stringify(body), "application/json", isChunked);
}

function toMessage(body: string, contentType: string, isChunked: boolean): string {
  const head = `HTTP/1.1 200 OK\r\nkeep-alive: timeout=60\r\ncontent-type: ${contentType}\r\n`;
  return isChunked
    ? `${head}transfer-encoding: chunked\r\n\r\n${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`
    : `${head}content-length: ${body.length}\r\n\r\n${body}`;
}
