import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";

export interface CutProxy extends AsyncDisposable {
  /** The URL of the proxy. It forwards to the service. */
  readonly url: string;
  /** The number of connections so far. */
  readonly connections: number;
  /** Breaks every open connection as a network failure does: both sides get a reset. Returns how many there were. */
  cut(): number;
}

/** A TCP proxy between a client and the service whose connections can be cut. */
export async function openCutProxy(targetUrl: string): Promise<CutProxy> {
  const target = new URL(targetUrl);
  const sockets = new Set<Socket>();
  let connections = 0;
  const pipe = (socket: Socket, other: Socket) => {
    sockets.add(socket);
    // When one side ends or breaks, the other side ends too.
    socket.on("error", () => other.destroy());
    socket.once("close", () => {
      sockets.delete(socket);
      other.destroy();
    });
    socket.pipe(other);
  };
  const server = createServer((near) => {
    connections += 1;
    const far = connect(Number(target.port), target.hostname);
    pipe(near, far);
    pipe(far, near);
  });
  const cut = () => {
    // Each connection has a socket on each side.
    const count = sockets.size / 2;
    for (const socket of sockets) socket.resetAndDestroy();
    return Math.ceil(count);
  };
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("the proxy has no port");
  return {
    url: `http://127.0.0.1:${address.port}`,
    get connections() {
      return connections;
    },
    cut,
    [Symbol.asyncDispose]: async () => {
      const closed = once(server, "close");
      server.close();
      cut();
      await closed;
    },
  };
}
