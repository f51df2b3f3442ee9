/** Chooses the replica for each request: the same one until it fails, then the next. */
export class ReplicaUrls {
  readonly #urls: readonly string[];
  #index = 0;

  /** @throws {TypeError} if a url is not a base address such as `https://enginehouse.internal`. */
  constructor(urls: readonly string[]) {
    if (urls.length === 0) throw new TypeError("the client has no url: pass `url` or `urls`");
    this.#urls = urls.map(toBaseUrl);
  }

  get count(): number {
    return this.#urls.length;
  }

  get current(): string {
    return this.#urls[this.#index] ?? "";
  }

  /** Moves on to the next replica. If many calls fail on one replica at once, only the first one moves on. */
  leave(url: string): void {
    if (url === this.current) this.#index = (this.#index + 1) % this.#urls.length;
  }
}

function toBaseUrl(url: string): string {
  const parsed = URL.canParse(url) ? new URL(url) : undefined;
  // `localhost:8080` parses too, with `localhost` as its scheme.
  if (!parsed || !(parsed.protocol === "http:" || parsed.protocol === "https:")) {
    throw new TypeError("the client's url does not begin with http:// or https://");
  }
  // The message must not have the url, which may contain a password.
  // The parser reports an empty query or fragment as none, but its `?` or `#` would precede our path.
  if (parsed.username + parsed.password !== "" || /[?#]/.test(parsed.href)) {
    throw new TypeError(
      "the client's url has a user, a query or a fragment: pass only an address and a path",
    );
  }
  // Other tRPC clients take the address with `/trpc`, so accept that as well.
  return parsed.href.replace(/\/+$/, "").replace(/\/trpc$/, "");
}
