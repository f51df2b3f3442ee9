import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";

export interface FlakyLink extends AsyncDisposable {
  /** The database's URL by way of this link. */
  readonly url: string;
  /** Breaks all connections and refuses new ones. */
  cut(): void;
  /** Breaks the connection that next gets a reply, after the server has done what was asked. */
  loseNextReply(): void;
  /** Connections stay open, and nothing comes through any more. */
  hang(): void;
  restore(): void;
}

/** A TCP link to a database that fails on demand. */
export async function openFlakyLink(databaseUrl: string): Promise<FlakyLink> {
  const target = new URL(databaseUrl);
  const sockets = new Set<Socket>();
  let isCut = false;
  let isHung = false;
  let losesReply = false;
  const server = createServer((near) => {
    if (isCut) {
      near.destroy();
      return;
    }
    const far = connect(Number(target.port || 5432), target.hostname);
    for (const socket of [near, far]) {
      sockets.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => {
        sockets.delete(socket);
        near.destroy();
        far.destroy();
      });
    }
    near.on("data", (chunk) => {
      if (!isHung) far.write(chunk);
    });
    far.on("data", (chunk) => {
      if (isHung) return;
      if (losesReply) {
        losesReply = false;
        near.destroy();
        return;
      }
      near.write(chunk);
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const url = new URL(databaseUrl);
  url.hostname = "127.0.0.1";
  url.port = String((server.address() as { port: number }).port);
  const cut = () => {
    isCut = true;
    for (const socket of sockets) socket.destroy();
  };
  return {
    url: url.href,
    cut,
    loseNextReply: () => {
      losesReply = true;
    },
    hang: () => {
      isHung = true;
    },
    restore: () => {
      // What was swallowed would leave its connection out of step for good.
      if (isHung) cut();
      isHung = false;
      isCut = false;
    },
    [Symbol.asyncDispose]: async () => {
      cut();
      server.close();
      await once(server, "close");
    },
  };
}
