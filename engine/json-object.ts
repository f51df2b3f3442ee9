export type JsonObject = Readonly<Record<string, unknown>>;

export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Recurses at most `depth` levels. JSON.stringify has no such limit and exhausts the stack on hostile nesting. */
export function isNestedDeeperThan(depth: number, value: unknown): boolean {
  if (typeof value !== "object" || value === null) return false;
  return depth === 0 || Object.values(value).some((item) => isNestedDeeperThan(depth - 1, item));
}
