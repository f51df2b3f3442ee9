/**
 * A signal that aborts after `ms`, or with the first of `others` and its reason. Disposing leaves neither a timer nor
 * a listener: `AbortSignal.any` and `AbortSignal.timeout` are left to the garbage collector, which makes them dear.
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
  /** True when the time was up before any of the others aborted. */
  get hasPassed(): boolean {
    return this.#hasPassed;
  }

  /** One of the others has aborted. */
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
