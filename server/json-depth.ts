/**
 * Whether JSON nests deeper than `limit` levels. Parsing copes with any depth, while writing it again recurses and
 * throws somewhere in the thousands, so what others send is measured before it is passed on.
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
