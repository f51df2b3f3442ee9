import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { isDaemonEndpoint } from "../../server/runtime/docker/daemon-endpoints.ts";

/** The daemon's socket. undefined: DOCKER_HOST names no socket, so there can be no proxy. */
export const DAEMON_SOCKET = findDaemonSocket();

export interface SocketProxy extends AsyncDisposable {
  /** Answers to matching requests are held back. The requests still reach the daemon. */
  holdAnswersTo(request: RegExp): void;
  /** The connection of a matching request is cut when the daemon answers. */
  cutAnswersTo(request: RegExp): void;
  passAnswers(): void;
  /** Cuts every open connection. */
  cut(): void;
  /** The bytes of all requests so far; each request is shortened to its beginning. */
  requests(): string;
}

/** How much of each connection's requests is kept. Some requests contain images. */
const KEPT_BYTES = 64 * 1024;

const REFUSAL = '{"message":"the socket proxy passes only requests of DAEMON_ENDPOINTS"}';

/**
 * A proxy between a client and the daemon's socket that causes the faults of a bad network. It refuses every request
 * that is not in DAEMON_ENDPOINTS, and its disposal throws if there was one.
 */
export async function openSocketProxy(path: string, target: string): Promise<SocketProxy> {
  const sockets = new Set<Socket>();
  const requests: Buffer[] = [];
  const refused: string[] = [];
  let fault: { request: RegExp; kind: "hold" | "cut" } | undefined;
  const server = createServer((client) => {
    const daemon = connect(target);
    for (const socket of [client, daemon]) {
      sockets.add(socket);
      socket.on("close", () => sockets.delete(socket)).on("error", () => socket.destroy());
    }
    let kind: "pass" | "hold" | "cut" = "pass";
    let left = KEPT_BYTES;
    client.on("data", (chunk: Buffer) => {
      const isBeginning = left === KEPT_BYTES;
      const [method = "", target = ""] = chunk.toString("latin1", 0, 2048).split(" ", 2);
      // The runtime has a connection for each request.
      if (isBeginning && !isDaemonEndpoint(method, target)) {
        refused.push(`${method} ${target}`);
        daemon.destroy();
        const headers = `content-type: application/json\r\ncontent-length: ${REFUSAL.length}\r\nconnection: close`;
        client.end(`HTTP/1.1 403 Forbidden\r\n${headers}\r\n\r\n${REFUSAL}`);
        return;
      }
      if (isBeginning && fault?.request.test(chunk.toString("latin1"))) kind = fault.kind;
      const kept = chunk.subarray(0, left);
      left -= kept.length;
      if (kept.length > 0) requests.push(Buffer.from(kept));
      if (!daemon.write(chunk)) client.pause();
    });
    daemon.on("drain", () => client.resume());
    daemon.on("data", (chunk: Buffer) => {
      if (kind === "pass") client.write(chunk);
      if (kind === "cut") client.destroy();
    });
    client.on("close", () => daemon.destroy());
    daemon.on("close", () => {
      if (kind !== "hold") client.destroySoon();
    });
  });
  server.listen(path);
  await once(server, "listening");
  const cut = () => {
    for (const socket of sockets) socket.destroy();
  };
  return {
    holdAnswersTo: (request) => void (fault = { request, kind: "hold" }),
    cutAnswersTo: (request) => void (fault = { request, kind: "cut" }),
    passAnswers: () => void (fault = undefined),
    cut,
    requests: () => Buffer.concat(requests).toString("latin1"),
    [Symbol.asyncDispose]: async () => {
      cut();
      server.close();
      await once(server, "close");
      if (refused.length > 0) throw new Error(`requests outside of DAEMON_ENDPOINTS: ${refused.join(", ")}`);
    },
  };
}

function findDaemonSocket(): string | undefined {
  const address = process.env["DOCKER_HOST"] || "unix:///var/run/docker.sock";
  return address.startsWith("unix://") ? address.slice("unix://".length) : undefined;
}
