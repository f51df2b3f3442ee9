import type { FastifyReply } from "fastify";

/** Half of the silence after which a client takes its connection for dead. */
const PING_INTERVAL_MS = 15_000;
const PING = "event: ping\ndata: \n\n\n";
/** No more than this is taken from tRPC before the connection has had it. */
const WRITE_BYTES = 64 * 1024;

/**
 * Passes tRPC's event stream on to the caller's connection.
 *
 * What tRPC hands over in one go, three pieces for each item, leaves as one chunk in one write. The pings are ours:
 * tRPC's own are a race of promises and a new timer for each item, which costs more than the item does.
 */
export function sendEventStream(reply: FastifyReply, response: Response): FastifyReply {
  const { raw } = reply;
  reply.hijack();
  if (raw.destroyed) {
    // Its close was told before anybody here listened.
    response.body?.cancel().catch(() => undefined);
    return reply;
  }
  for (const [name, value] of [...Object.entries(reply.getHeaders()), ...response.headers]) {
    if (value !== undefined) raw.setHeader(name, value);
  }
  raw.writeHead(response.status);
  if (response.body === null) raw.end();
  else new EventStreamPump(raw, response.body.getReader()).start();
  return reply;
}

class EventStreamPump {
  readonly #to: FastifyReply["raw"];
  readonly #from: ReadableStreamDefaultReader<Uint8Array>;
  readonly #ping: NodeJS.Timeout;
  #pieces: Uint8Array[] = [];
  #bytes = 0;
  #isBlocked = false;
  #isPaused = false;

  constructor(to: FastifyReply["raw"], from: ReadableStreamDefaultReader<Uint8Array>) {
    this.#to = to;
    this.#from = from;
    this.#ping = setTimeout(() => this.#sendPing(), PING_INTERVAL_MS);
  }

  start(): void {
    this.#to.once("close", () => this.#stop());
    this.#to.on("drain", () => {
      this.#isBlocked = false;
      this.#goOn();
    });
    // A write that fails closes the connection, and that is what counts.
    this.#to.on("error", () => undefined);
    this.#read();
  }

  #read(): void {
    this.#from.read().then(
      ({ done, value }) => (done ? this.#end() : this.#take(value)),
      () => this.#to.destroy(),
    );
  }

  #take(piece: Uint8Array): void {
    this.#bytes += piece.length;
    // Ticks come after all promises that are settled by now, and so after the item's last piece.
    if (this.#pieces.push(piece) === 1) process.nextTick(() => this.#flush());
    this.#isPaused = this.#isBlocked || this.#bytes >= WRITE_BYTES;
    if (!this.#isPaused) this.#read();
  }

  #flush(): void {
    if (this.#to.destroyed || this.#pieces.length === 0) return;
    const chunk = Buffer.concat(this.#pieces, this.#bytes);
    this.#pieces = [];
    this.#bytes = 0;
    this.#ping.refresh();
    this.#isBlocked = !this.#to.write(chunk);
    this.#goOn();
  }

  #goOn(): void {
    if (!this.#isPaused || this.#isBlocked) return;
    this.#isPaused = false;
    this.#read();
  }

  #end(): void {
    clearTimeout(this.#ping);
    this.#flush();
    this.#to.end();
  }

  #sendPing(): void {
    // Whoever does not read has more to read already.
    if (!this.#isBlocked) this.#to.write(PING);
    this.#ping.refresh();
  }

  #stop(): void {
    clearTimeout(this.#ping);
    this.#from.cancel().catch(() => {
      // It has ended already, and nobody is left to be told.
    });
  }
}
