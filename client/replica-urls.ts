/** Which of several replicas is asked: the same one until it fails, then the next. */
export class ReplicaUrls {
  readonly #urls: readonly string[];
  #index = 0;

  /** Base addresses such as `https://enginehouse.internal`. */
  constructor(urls: readonly string[]) {
    if (urls.length === 0) throw new TypeError("a client needs a url");
    this.#urls = urls.map((url) => new URL(url).href.replace(/\/+$/, ""));
  }

  get count(): number {
    return this.#urls.length;
  }

  get current(): string {
    return this.#urls[this.#index] ?? "";
  }

  /** Many calls may fail on one replica at once; only the first of them moves on. */
  leave(url: string): void {
    if (url === this.current) this.#index = (this.#index + 1) % this.#urls.length;
  }
}
