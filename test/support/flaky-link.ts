import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";

export interface FlakyLink extends AsyncDisposable {
  /** The database's URL by way of this link. */
  readonly url: string;
  /** How many connections there are. */
  readonly connections: number;
  /** Breaks all connections, one that is being set up as soon as it is, and refuses new ones. */
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
   * postgres.js begins connections with a look at the types, and waits for the answer nowhere: when the connection
   * breaks just then, that is a rejection that nobody handles, which fails a run of the tests.
   */
  isSetUp: boolean;
  isDoomed: boolean;
}

const TYPE_LOOKUP = "b.typarray";
/** The last message of every reply: its letter, its length, and a byte that says whether there is a transaction. */
const READY = Buffer.from([0x5a, 0, 0, 0, 5]);
const READY_BYTES = READY.length + 1;

// By their letters: a statement to prepare, or one as it is; and the beginning of what comes of one.
const isStatement = (message: Buffer) => message[0] === 0x50 || message[0] === 0x51;
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
    const line: Line = { near, far, isSetUp: false, isDoomed: false };
    lines.add(line);
    for (const socket of [near, far]) {
      socket.on("error", () => {});
      socket.on("close", () => {
        lines.delete(line);
        near.destroy();
        far.destroy();
      });
    }
    let isLookingUp = false;
    near.on("data", (chunk) => {
      if (isHung || (line.isDoomed && line.isSetUp)) return;
      if (chunk.includes(TYPE_LOOKUP)) isLookingUp = true;
      else if (!isLookingUp) line.isSetUp ||= isStatement(chunk);
      far.write(chunk);
    });
    let tail = Buffer.alloc(0);
    far.on("data", (chunk) => {
      if (isHung) return;
      tail = Buffer.concat([tail, chunk]).subarray(-READY_BYTES);
      const isWhole = tail.subarray(0, READY.length).equals(READY);
      // From its first byte: an error without its end would be taken for the answer to a later statement.
      if (line.isSetUp && (isWhole || isResult(chunk)) && losing) {
        near.destroy();
        losing.resolve();
        losing = undefined;
        return;
      }
      near.write(chunk);
      line.isSetUp ||= isLookingUp && isWhole;
      if (line.isSetUp && line.isDoomed) near.end();
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
      // One that hangs is never set up.
      if (line.isSetUp || isHung) line.near.destroy();
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
