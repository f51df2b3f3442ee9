import { once } from "node:events";
import { connect, createServer } from "node:net";
import type { Socket } from "node:net";

/** The daemon's socket; a daemon that is reached otherwise has none to stand before. */
export const DAEMON_SOCKET = findDaemonSocket();

export interface SocketProxy extends AsyncDisposable {
  /** From now on answers to requests like this stay here; the requests still reach the daemon. */
  holdAnswersTo(request: RegExp): void;
  /** From now on whoever asks something like this is cut off as soon as the daemon answers. */
  cutAnswersTo(request: RegExp): void;
  passAnswers(): void;
  /** Ends every connection there is. */
  cut(): void;
  /** The beginning of all that was asked so far, as it went over the wire. */
  asked(): string;
}

/** What is kept of a request; images are sent in some. */
const KEPT_BYTES = 64 * 1024;

/** Stands between a client and the daemon's socket, as a bad network would. */
export async function openSocketProxy(path: string, target: string): Promise<SocketProxy> {
  const sockets = new Set<Socket>();
  const asked: Buffer[] = [];
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
      if (isBeginning && fault?.request.test(chunk.toString("latin1"))) kind = fault.kind;
      const kept = chunk.subarray(0, left);
      left -= kept.length;
      if (kept.length > 0) asked.push(Buffer.from(kept));
    });
    client.pipe(daemon, { end: false });
    daemon.on("data", (chunk: Buffer) => {
      if (kind === "pass") client.write(chunk);
      if (kind === "cut") client.destroy();
    });
    client.on("close", () => daemon.destroy());
    daemon.on("close", () => {
      if (kind !== "hold") client.destroy();
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
    asked: () => Buffer.concat(asked).toString("latin1"),
    [Symbol.asyncDispose]: async () => {
      cut();
      server.close();
      await once(server, "close");
    },
  };
}

function findDaemonSocket(): string | undefined {
  const address = process.env["DOCKER_HOST"] || "unix:///var/run/docker.sock";
  return address.startsWith("unix://") ? address.slice("unix://".length) : undefined;
}
