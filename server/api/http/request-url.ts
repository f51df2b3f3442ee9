const PATH_MAX_LENGTH = 200;

/** A URL without its query, which may hold inputs, and short enough for a log. */
export function toPath(url: string): string {
  return url.split("?", 1).join("").slice(0, PATH_MAX_LENGTH);
}

/** A URL's query, with its question mark; empty without one. A fragment, which no client should send, is not in it. */
export function toSearch(url: string): string {
  const [whole = ""] = url.split("#", 1);
  const at = whole.indexOf("?");
  return at === -1 ? "" : whole.slice(at);
}
