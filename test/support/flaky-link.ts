import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";

export interface FlakyLink extends AsyncDisposable {
  /** The database's URL by way of this link. */
  readonly url: string;
  /** How many connections there are. */
  readonly connections: number;
  /** Breaks all connections, one that looks up types as soon as it has done so, and refuses new ones. */
  cut(): void;
  /** Breaks the connection that next gets a reply, after the server has done what was asked. Resolves then. */
  loseNextReply(): Promise<void>;
  /** Connections stay open, and nothing comes through any more. */
  hang(): void;
  restore(): void;
}

interface Line {
  near: Socket;
  far: Socket;
  /**
   * Once it is connected postgres.js looks up types, and waits for the answer nowhere: a connection that breaks just
   * then is a rejection that nobody handles, which fails a run of the tests.
   */
  state: "connecting" | "looking up types" | "ready";
  isDoomed: boolean;
}

const TYPE_LOOKUP = "b.typarray";
/** The last message of every reply: its letter, its length, and a byte that says whether there is a transaction. */
const READY = Buffer.from([0x5a, 0, 0, 0, 5]);
const READY_BYTES = READY.length + 1;

/** By its letter: the beginning of what comes of a statement. */
const isResult = (message: Buffer) => message[0] === 0x32;

/** A TCP link of postgres.js to a database that fails on demand. */
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
      // From its first byte: an error without its end would be taken for the answer to a later statement.
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
