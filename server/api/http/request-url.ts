const PATH_MAX_LENGTH = 200;

/** Cuts a URL down for a log line: without the query, which may hold inputs, and at most 200 characters. */
export function toPath(url: string): string {
  return url.split("?", 1).join("").slice(0, PATH_MAX_LENGTH);
}

/** Returns the query of a URL with its question mark, or an empty text. Ignores a fragment, which no client should send. */
export function toSearch(url: string): string {
  const [whole = ""] = url.split("#", 1);
  const at = whole.indexOf("?");
  return at === -1 ? "" : whole.slice(at);
}
