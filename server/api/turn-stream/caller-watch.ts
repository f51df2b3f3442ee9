import { DomainError, type Reason } from "../../errors.ts";

export interface WatchContext {
  /** Checks the caller's key again. */
  reauthenticate(): Promise<unknown>;
  /** Aborts when the server closes. */
  closing: AbortSignal;
}

const KEY_REFUSALS: ReadonlySet<Reason> = new Set(["INVALID_KEY", "KEY_EXPIRED", "KEY_REVOKED"]);
/** Streams must end within a second of a revocation. States of keys are cached for 500 ms, so 400 ms is often enough. */
const RECHECK_MS = 400;

/** Ends a stream when its caller leaves, the server closes, the caller's key is refused, or a limit ends it. */
export class CallerWatch implements Disposable {
  readonly #ctx: WatchContext;
  readonly #left: AbortSignal | undefined;
  readonly #ended = new AbortController();
  readonly #timer: NodeJS.Timeout;
  #refused: string | undefined;
  #isChecking = false;

  /** Checks the key periodically. The stream continues while the key cannot be checked. */
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
  /** Why the key was refused; undefined if the key is valid or the signal aborted for another reason. */
  get refused(): string | undefined {
    return this.#refused;
  }

  /** Ends the stream. Called when one of the signals aborts, too. The watch itself is the listener, which saves a closure per stream. */
  handleEvent(): void {
    this.#ended.abort(new DOMException("the stream has ended", "AbortError"));
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    for (const signal of [this.#ctx.closing, this.#left]) signal?.removeEventListener("abort", this);
  }

  async #recheck(): Promise<void> {
    if (this.#isChecking) return;
    this.#isChecking = true;
    try {
      await this.#ctx.reauthenticate();
    } catch (error) {
      const isRefusal = error instanceof DomainError && KEY_REFUSALS.has(error.reason);
      if (!isRefusal || this.#ended.signal.aborted) return;
      this.#refused = error.message;
      this.handleEvent();
    } finally {
      this.#isChecking = false;
    }
  }
}
