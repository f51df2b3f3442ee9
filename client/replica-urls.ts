/** Which of several replicas is asked: the same one until it fails, then the next. */
export class ReplicaUrls {
  readonly #urls: readonly string[];
  #index = 0;

  /** Base addresses such as `https://enginehouse.internal`. Throws a TypeError for anything else. */
  constructor(urls: readonly string[]) {
    if (urls.length === 0) throw new TypeError("a client needs a url");
    this.#urls = urls.map(toBaseUrl);
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

function toBaseUrl(url: string): string {
  const parsed = URL.canParse(url) ? new URL(url) : undefined;
  // `localhost:8080` parses, too: as the scheme `localhost`.
  if (!parsed || !(parsed.protocol === "http:" || parsed.protocol === "https:")) {
    throw new TypeError("the url of a client begins with http:// or https://");
  }
  // Without the url: a password may be in it.
  // An empty query or fragment is none to the parser, and would still be in front of our path.
  if (parsed.username + parsed.password !== "" || /[?#]/.test(parsed.href)) {
    throw new TypeError("the url of a client is an address and a path, without user, query or fragment");
  }
  // Some give the whole of tRPC's address, as other clients of tRPC take it.
  return parsed.href.replace(/\/+$/, "").replace(/\/trpc$/, "");
}
