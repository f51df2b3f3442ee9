import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";

export interface HostileEngine extends AsyncDisposable {
  readonly url: string;
  /** The bodies of the received requests, in order. */
  readonly calls: string[];
  behave(next: Behaviour): void;
}

export type Behaviour = (response: ServerResponse, request: IncomingMessage, body: string) => void;

/** An HTTP server that acts as an engine with any behaviour, good or bad. */
export async function openHostileEngine(
  first: Behaviour = answer(200, { result: null }),
  port = 0,
): Promise<HostileEngine> {
  let behaviour = first;
  const calls: string[] = [];
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const body = Buffer.concat(chunks).toString("utf8");
      calls.push(body);
      behaviour(response, request, body);
    });
    request.on("error", () => {});
    response.on("error", () => {});
  });
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("the server has no TCP port");
  const close = async () => {
    server.closeAllConnections();
    server.close();
    await once(server, "close");
  };
  return {
    url: `http://127.0.0.1:${address.port}`,
    calls,
    behave: (next) => {
      behaviour = next;
    },
    [Symbol.asyncDispose]: close,
  };
}

export function answer(status: number, body: unknown): Behaviour {
  return (response) => {
    response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
  };
}

export const behaviours = {
  html: (response) => {
    response.writeHead(200, { "content-type": "text/html" }).end("<html><body>It works!</body></html>");
  },
  nothing: () => {},
  emptyBody: (response) => {
    response.writeHead(200).end();
  },
  halfAResponse: (response) => {
    response.writeHead(200, { "content-type": "application/json", "content-length": 100 });
    response.write('{"result": {"half":', () => response.destroy());
  },
  stallsMidway: (response) => {
    response.writeHead(200, { "content-type": "application/json", "content-length": 100 });
    response.write('{"result": {"half":');
  },
  tenMegabytes: (response) => {
    response.writeHead(200, { "content-type": "application/json" });
    response.end(JSON.stringify({ result: "x".repeat(10 * 1024 * 1024) }));
  },
  crashes: (response) => {
    response.destroy();
  },
  notHttp: (_response, request) => {
    request.socket.end("220 mail.example.com ESMTP\r\n");
  },
  deep: (response) => {
    response.writeHead(200).end(`{"result":${"[".repeat(400_000)}${"]".repeat(400_000)}}`);
  },
} as const satisfies Record<string, Behaviour>;
