/**
 * Tells whether JSON nests deeper than `limit` levels. Parsing accepts any depth, but JSON.stringify recurses and throws
 * at some thousand levels. So check what callers send before passing it on.
 */
export function isDeeperThan(value: unknown, limit: number): boolean {
  let level = [value].filter(isContainer);
  for (let depth = 0; level.length > 0; depth += 1) {
    if (depth === limit) return true;
    level = level.flatMap((container) => Object.values(container).filter(isContainer));
  }
  return false;
}

function isContainer(value: unknown): value is object {
  return typeof value === "object" && value !== null;
}
