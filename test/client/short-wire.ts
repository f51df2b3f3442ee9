import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";

export interface ShortWire extends AsyncDisposable {
  /** The address of the service through this wire. */
  readonly url: string;
  /** How many connections there were so far. */
  readonly connections: number;
  /** How many bytes the service has sent so far. */
  readonly bytes: number;
}

/** A TCP proxy in front of the service. It resets each connection after the service has sent this many bytes. */
export async function openShortWire(targetUrl: string, bytes: number): Promise<ShortWire> {
  const target = new URL(targetUrl);
  const sockets = new Set<Socket>();
  let connections = 0;
  let sent = 0;
  const server = createServer((near) => {
    connections += 1;
    const far = connect(Number(target.port), target.hostname);
    for (const socket of [near, far]) {
      sockets.add(socket);
      socket.on("error", () => {});
      socket.once("close", () => {
        sockets.delete(socket);
        near.destroy();
        far.destroy();
      });
    }
    near.pipe(far);
    let left = bytes;
    far.on("data", (chunk: Buffer) => {
      const isLast = chunk.length >= left;
      near.write(chunk.subarray(0, left), () => {
        if (isLast) near.resetAndDestroy();
      });
      left -= chunk.length;
      sent += chunk.length;
      if (isLast) far.pause();
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("the wire has no port");
  return {
    url: `http://127.0.0.1:${address.port}`,
    get connections() {
      return connections;
    },
    get bytes() {
      return sent;
    },
    [Symbol.asyncDispose]: async () => {
      const closed = once(server, "close");
      server.close();
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}
