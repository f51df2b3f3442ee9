/** The field of a value that may be no object; undefined if there is no such field. */
export function fieldOf(data: unknown, name: string): unknown {
  return typeof data === "object" && data !== null ? (data as Record<string, unknown>)[name] : undefined;
}
