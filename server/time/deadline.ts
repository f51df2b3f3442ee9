/**
 * A signal that aborts after `ms`, or with the first of `others` and its reason. Dispose removes its timer and its
 * listeners. `AbortSignal.any` and `AbortSignal.timeout` leave that to the garbage collector, which costs more.
 */
export class Deadline implements Disposable {
  readonly #ended = new AbortController();
  readonly #others: readonly AbortSignal[];
  readonly #timer: NodeJS.Timeout;
  #hasPassed = false;

  constructor(ms: number, others: readonly (AbortSignal | undefined)[] = []) {
    this.#others = others.filter((signal) => signal !== undefined);
    this.#timer = setTimeout(() => {
      this.#hasPassed = true;
      this.#ended.abort(new DOMException(`${ms} ms have passed`, "TimeoutError"));
    }, ms);
    for (const signal of this.#others) {
      if (signal.aborted) this.#end(signal);
      else signal.addEventListener("abort", this, { once: true });
    }
  }

  get signal(): AbortSignal {
    return this.#ended.signal;
  }
  /** True if the time passed before any of the others aborted. */
  get hasPassed(): boolean {
    return this.#hasPassed;
  }

  /** Called when one of the others aborts. */
  handleEvent(event: Event): void {
    this.#end(event.target as AbortSignal);
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    for (const signal of this.#others) signal.removeEventListener("abort", this);
  }

  #end(signal: AbortSignal): void {
    clearTimeout(this.#timer);
    this.#ended.abort(signal.reason);
  }
}
