import { DomainError, type Reason } from "../../errors.ts";
import type { RequestContext } from "../trpc/request-context.ts";

type WatchContext = Pick<RequestContext, "reauthenticate" | "closing">;

const KEY_REFUSALS: ReadonlySet<Reason> = new Set(["INVALID_KEY", "KEY_EXPIRED", "KEY_REVOKED"]);
/** Twice within the second in which a revoked key's streams must end, look-ups being cached for half of one. */
const RECHECK_MS = 400;

/** Ends a stream when its caller leaves, the server closes, or the key is not good any more. */
export class CallerWatch implements Disposable {
  readonly #ctx: WatchContext;
  readonly #left: AbortSignal | undefined;
  readonly #ended = new AbortController();
  readonly #timer: NodeJS.Timeout;
  #refused: string | undefined;
  #isAsking = false;

  /** Asks about the key anew every now and then. While nobody can answer, the stream goes on. */
  constructor(ctx: WatchContext, left: AbortSignal | undefined) {
    this.#ctx = ctx;
    this.#left = left;
    this.#timer = setInterval(() => void this.#recheck(), RECHECK_MS);
    for (const signal of [ctx.closing, left]) {
      if (signal?.aborted) this.handleEvent();
      else signal?.addEventListener("abort", this, { once: true });
    }
  }

  get signal(): AbortSignal {
    return this.#ended.signal;
  }
  /** Why the key is refused; undefined while it is good or the signal aborted for another reason. */
  get refused(): string | undefined {
    return this.#refused;
  }

  /** One of the signals has aborted. */
  handleEvent(): void {
    this.#ended.abort(new DOMException("the stream has ended", "AbortError"));
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    for (const signal of [this.#ctx.closing, this.#left]) signal?.removeEventListener("abort", this);
  }

  async #recheck(): Promise<void> {
    if (this.#isAsking) return;
    this.#isAsking = true;
    try {
      await this.#ctx.reauthenticate();
    } catch (error) {
      const isRefusal = error instanceof DomainError && KEY_REFUSALS.has(error.reason);
      if (!isRefusal || this.#ended.signal.aborted) return;
      this.#refused = error.message;
      this.handleEvent();
    } finally {
      this.#isAsking = false;
    }
  }
}
