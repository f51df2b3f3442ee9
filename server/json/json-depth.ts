/**
 * Tells whether JSON nests deeper than `limit` levels. Parsing accepts any depth, but JSON.stringify recurses and throws
 * at some thousand levels. So check what callers send before passing it on.
 */
export function isDeeperThan(value: unknown, limit: number): boolean {
  let level = [value].filter(isContainer);
  for (let depth = 0; level.length > 0; depth += 1) {
    if (depth === limit) return true;
    const next: object[] = [];
    for (const container of level) addContainersIn(container, next);
    level = next;
  }
  return false;
}

function addContainersIn(container: object, found: object[]): void {
  // Lists are read in place: a copy of each of many small ones would take most of the time.
  const values: readonly unknown[] = Array.isArray(container) ? container : Object.values(container);
  for (const inner of values) if (isContainer(inner)) found.push(inner);
}

function isContainer(value: unknown): value is object {
  return typeof value === "object" && value !== null;
}
