import { once } from "node:events";
import { connect, createServer } from "node:net";
import type { Socket } from "node:net";

export interface SocketProxy extends AsyncDisposable {
  /** From now on answers to requests like this stay here; the requests still reach the daemon. */
  holdAnswersTo(request: RegExp): void;
  passAnswers(): void;
  /** Ends every connection there is. */
  cut(): void;
  /** All that was asked so far, as it went over the wire. */
  asked(): string;
}

/** Stands between a client and the daemon's socket, as a bad network would. */
export async function openSocketProxy(path: string, target: string): Promise<SocketProxy> {
  const sockets = new Set<Socket>();
  const asked: Buffer[] = [];
  let held: RegExp | undefined;
  const server = createServer((client) => {
    const daemon = connect(target);
    for (const socket of [client, daemon]) {
      sockets.add(socket);
      socket.on("close", () => sockets.delete(socket)).on("error", () => socket.destroy());
    }
    let isHeld = false;
    client.on("data", (chunk: Buffer) => {
      asked.push(chunk);
      isHeld ||= held?.test(chunk.toString("latin1")) === true;
      daemon.write(chunk);
    });
    daemon.on("data", (chunk: Buffer) => {
      if (!isHeld) client.write(chunk);
    });
    client.on("close", () => daemon.destroy());
    daemon.on("close", () => {
      if (!isHeld) client.destroy();
    });
  });
  server.listen(path);
  await once(server, "listening");
  const cut = () => {
    for (const socket of sockets) socket.destroy();
  };
  return {
    holdAnswersTo: (request) => void (held = request),
    passAnswers: () => void (held = undefined),
    cut,
    asked: () => Buffer.concat(asked).toString("latin1"),
    [Symbol.asyncDispose]: async () => {
      cut();
      server.close();
      await once(server, "close");
    },
  };
}
