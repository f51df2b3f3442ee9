import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";

export interface FlakyLink extends AsyncDisposable {
  /** The url of the database through this link. */
  readonly url: string;
  /** How many connections are open. */
  readonly connections: number;
  /** Breaks all connections and refuses new ones. A connection that looks up types breaks after the lookup. */
  cut(): void;
  /** Breaks a connection instead of passing on the next reply. The server has then run the statement. Resolves then. */
  loseNextReply(): Promise<void>;
  /** Connections stay open, but no data passes. */
  hang(): void;
  restore(): void;
}

interface Line {
  near: Socket;
  far: Socket;
  /**
   * After it has connected, postgres.js looks up types without awaiting the result. A break during the lookup causes an
   * unhandled rejection, which would fail the test run.
   */
  state: "connecting" | "looking up types" | "ready";
  isDoomed: boolean;
}

const TYPE_LOOKUP = "b.typarray";
/** ReadyForQuery, the last message of each reply: its letter and its length. The status byte follows. */
const READY = Buffer.from([0x5a, 0, 0, 0, 5]);
const READY_BYTES = READY.length + 1;

/** Whether the message is BindComplete, the first one of a reply to a prepared statement. */
const isResult = (message: Buffer) => message[0] === 0x32;

/** A TCP proxy between postgres.js and a database, which fails on demand. */
export async function openFlakyLink(databaseUrl: string): Promise<FlakyLink> {
  const target = new URL(databaseUrl);
  const lines = new Set<Line>();
  let isCut = false;
  let isHung = false;
  let losing: PromiseWithResolvers<void> | undefined;
  const server = createServer((near) => {
    if (isCut) {
      near.destroy();
      return;
    }
    const far = connect(Number(target.port || 5432), target.hostname);
    const line: Line = { near, far, state: "connecting", isDoomed: false };
    lines.add(line);
    for (const socket of [near, far]) {
      socket.on("error", () => {});
      socket.on("close", () => {
        lines.delete(line);
        near.destroy();
        far.destroy();
      });
    }
    near.on("data", (chunk) => {
      if (isHung || (line.isDoomed && line.state === "ready")) return;
      if (line.state === "looking up types" && !chunk.includes(TYPE_LOOKUP)) line.state = "ready";
      far.write(chunk);
    });
    let tail = Buffer.alloc(0);
    far.on("data", (chunk) => {
      if (isHung) return;
      tail = Buffer.concat([tail, chunk]).subarray(-READY_BYTES);
      const isWhole = tail.subarray(0, READY.length).equals(READY);
      // Drop the reply from its first byte on. postgres.js would take half an error for the reply to a later statement.
      if (line.state === "ready" && (isWhole || isResult(chunk)) && losing) {
        near.destroy();
        losing.resolve();
        losing = undefined;
        return;
      }
      near.write(chunk);
      if (isWhole) line.state = line.state === "connecting" ? "looking up types" : "ready";
      if (line.isDoomed && line.state === "ready") near.end();
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const url = new URL(databaseUrl);
  url.hostname = "127.0.0.1";
  url.port = String((server.address() as { port: number }).port);
  const cut = () => {
    isCut = true;
    losing = undefined;
    for (const line of lines) {
      line.isDoomed = true;
      if (line.state !== "looking up types" || isHung) line.near.destroy();
    }
  };
  return {
    url: url.href,
    get connections() {
      return lines.size;
    },
    cut,
    loseNextReply: async () => {
      losing ??= Promise.withResolvers();
      return losing.promise;
    },
    hang: () => {
      isHung = true;
    },
    restore: () => {
      // A connection that has lost data is out of step for ever, so break it.
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
