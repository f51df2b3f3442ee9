import { OUR_KEYS } from "../../secrets/secrets.ts";

const PATH_MAX_LENGTH = 200;
const SEARCHED_LENGTH = 600;
/** Other keys. Long ids of turns and users look the same; the log line has the turn's id in a field of its own. */
const KEY_LIKE = /(?=[^/]*\d)(?=[^/]*[A-Za-z])[\w~+=-]{24,}/g;

/**
 * Cuts a URL down for a log line: at most 200 characters, without the query, which may hold inputs, and without keys,
 * which a caller may put into the path by mistake.
 */
export function toPath(url: string): string {
  const path = OUR_KEYS.hideInStart(url.split("?", 1).join(""), SEARCHED_LENGTH);
  // Cut last: the beginning of a key that is cut off would not be found.
  return path.replaceAll(KEY_LIKE, "[hidden]").slice(0, PATH_MAX_LENGTH);
}

/** Returns the query of a URL with its question mark, or an empty text. Ignores a fragment, which no client should send. */
export function toSearch(url: string): string {
  const [whole = ""] = url.split("#", 1);
  const at = whole.indexOf("?");
  return at === -1 ? "" : whole.slice(at);
}
