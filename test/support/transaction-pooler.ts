import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";

export interface TransactionPooler extends AsyncDisposable {
  readonly url: string;
}

/** ReadyForQuery outside a transaction: the server connection may serve another client. */
const IDLE = Buffer.from([0x5a, 0, 0, 0, 5, 0x49]);
const SESSIONS = 2;

/**
 * A connection pooler in transaction mode, as small as the tests need: a client has a session only during a
 * transaction, and its startup parameters are dropped. A client logs in on a session of its own, which then joins the
 * pool.
 */
export async function openTransactionPooler(databaseUrl: string): Promise<TransactionPooler> {
  const target = new URL(databaseUrl);
  const sockets = new Set<Socket>();
  const idle: Socket[] = [];
  const waiting: ((session: Socket) => void)[] = [];
  const track = (socket: Socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.on("close", () => sockets.delete(socket));
    return socket;
  };
  const release = (session: Socket) => {
    session.removeAllListeners("data");
    const next = waiting.shift();
    if (next !== undefined) next(session);
    else if (idle.length < SESSIONS) idle.push(session);
    else session.destroy();
  };
  const server = createServer((client) => {
    track(client);
    let session: Socket | undefined = track(connect(Number(target.port), target.hostname));
    let isStarted = false;
    const held: Buffer[] = [];
    const attach = (to: Socket) => {
      session = to;
      to.on("data", (chunk: Buffer) => {
        client.write(chunk);
        if (!chunk.subarray(-IDLE.length).equals(IDLE)) return;
        session = undefined;
        release(to);
      });
      for (const chunk of held.splice(0)) to.write(chunk);
    };
    attach(session);
    client.on("data", (chunk: Buffer) => {
      const message = isStarted ? chunk : toBareStartup(chunk);
      isStarted = true;
      // The client leaves. The session stays.
      if (chunk[0] === 0x58) return;
      if (session !== undefined) {
        session.write(message);
        return;
      }
      held.push(message);
      if (held.length > 1) return;
      const free = idle.pop();
      if (free === undefined) waiting.push(attach);
      else attach(free);
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const url = new URL(databaseUrl);
  url.port = String((server.address() as { port: number }).port);
  return {
    url: url.href,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
}

/** The first message of a connection, with only the user and the database. */
function toBareStartup(message: Buffer): Buffer {
  const words = message.subarray(8).toString().split("\0");
  const pairs = ["user", "database"].flatMap((name) => [name, words[words.indexOf(name) + 1] ?? ""]);
  const body = Buffer.from(`${pairs.join("\0")}\0\0`);
  const head = Buffer.alloc(8);
  head.writeInt32BE(8 + body.length, 0);
  message.copy(head, 4, 4, 8);
  return Buffer.concat([head, body]);
}
