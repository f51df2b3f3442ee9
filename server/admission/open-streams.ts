import { DomainError } from "../errors.ts";
import type { Clock } from "../time/clock.ts";
import { spreadRetry } from "../time/spread-retry.ts";

export interface StreamLimits {
  perProduct: number;
  /** undefined: the streams of one key are not limited apart. */
  perKey: number | undefined;
}

export interface StreamToOpen {
  productId: string;
  /** The id of the caller's key. */
  keyId: string;
  turnId: string;
  limits: StreamLimits;
  /** Ends the stream, so that its reader comes back if it still reads. */
  end: () => void;
}

type OpenStream = Omit<StreamToOpen, "limits"> & { openedAt: number };

const RETRY_MS = 1_000;
/**
 * How long a stream keeps its place, at least. Otherwise two readers of one turn could take each other's place again and
 * again, as fast as they can. A browser waits longer before it comes back.
 */
const KEEP_MS = 2_000;

/**
 * Counts the open streams of turns, by product and by key. The streams of this process count, because they are what uses
 * its memory and descriptors.
 *
 * A reader that lost its connection comes back before the loss is noticed here, and its old stream still counts. So at a
 * limit, a stream takes the place of the oldest stream that the same key has of the same turn, unless that is new.
 */
export class OpenStreams {
  readonly #clock: Pick<Clock, "now">;
  /** By the id of a product or a key. Each set is in the order in which its streams were opened. */
  readonly #streamsOf = new Map<string, Set<OpenStream>>();

  constructor(clock: Pick<Clock, "now">) {
    this.#clock = clock;
  }

  countOf(productOrKeyId: string): number {
    return this.#streamsOf.get(productOrKeyId)?.size ?? 0;
  }

  /** Counts the stream until the result is disposed. Throws STREAM_LIMIT. */
  open({ limits, ...given }: StreamToOpen): Disposable {
    const openedAt = this.#clock.now();
    const stream: OpenStream = { ...given, turnId: given.turnId.toLowerCase(), openedAt };
    const { productId, keyId } = stream;
    const { perProduct, perKey } = limits;
    const isKeyFull = perKey !== undefined && this.countOf(keyId) >= perKey;
    const isProductFull = this.countOf(productId) >= perProduct;
    if (isKeyFull || isProductFull) {
      const before = this.#findBefore(stream);
      if (before === undefined) throw isKeyFull ? toKeyError(perKey) : toProductError(perProduct);
      this.#remove(before);
      before.end();
    }
    for (const id of [productId, keyId]) {
      const streams = this.#streamsOf.get(id);
      if (streams === undefined) this.#streamsOf.set(id, new Set([stream]));
      else streams.add(stream);
    }
    return { [Symbol.dispose]: () => this.#remove(stream) };
  }

  /** The stream whose place the given one may take. */
  #findBefore({ productId, keyId, turnId, openedAt }: OpenStream): OpenStream | undefined {
    for (const stream of this.#streamsOf.get(keyId) ?? []) {
      if (openedAt - stream.openedAt < KEEP_MS) return undefined;
      if (stream.turnId === turnId && stream.productId === productId) return stream;
    }
    return undefined;
  }

  #remove(stream: OpenStream): void {
    for (const id of [stream.productId, stream.keyId]) {
      const streams = this.#streamsOf.get(id);
      streams?.delete(stream);
      if (streams?.size === 0) this.#streamsOf.delete(id);
    }
  }
}

function toKeyError(max: number): DomainError {
  return streamLimit(
    `this key may have ${max} streams open at once (maxOpenStreamsPerKey of its product's policy), and has them`,
  );
}

function toProductError(max: number): DomainError {
  return streamLimit(
    `the product may have ${max} streams open at once at a replica (maxOpenStreams of its policy, else ORCH_MAX_OPEN_STREAMS), and has them`,
  );
}

function streamLimit(what: string): DomainError {
  return new DomainError(
    "STREAM_LIMIT",
    `${what}: close streams without a reader, or ask an operator to raise the limit`,
    { retryAfterMs: spreadRetry(RETRY_MS) },
  );
}
