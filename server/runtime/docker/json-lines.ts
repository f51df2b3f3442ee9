/** A line longer than this is no line of the daemon's, and is not waited for. */
const MAX_LINE_LENGTH = 1024 * 1024;

/** The objects in a stream of JSON lines. Whatever is no object is passed over. */
export async function* readJsonLines(
  stream: AsyncIterable<Buffer | string>,
): AsyncGenerator<Record<string, unknown>, void, undefined> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of stream) {
    rest += typeof chunk === "string" ? chunk : decoder.decode(chunk, { stream: true });
    const lines = rest.split("\n");
    rest = lines.pop() ?? "";
    if (rest.length > MAX_LINE_LENGTH) rest = "";
    for (const line of lines) {
      const value = parseObject(line);
      if (value !== undefined) yield value;
    }
  }
  const value = parseObject(rest);
  if (value !== undefined) yield value;
}

function parseObject(line: string): Record<string, unknown> | undefined {
  if (line.trim() === "") return undefined;
  try {
    const value: unknown = JSON.parse(line);
    return isObject(value) ? value : undefined;
  } catch {
    // Cut in the middle, or not JSON: the next line may be.
    return undefined;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
