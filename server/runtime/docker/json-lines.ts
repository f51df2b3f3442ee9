/** The daemon writes no longer lines, so a longer line is dropped. */
const MAX_LINE_LENGTH = 1024 * 1024;

/** The objects in a stream of JSON lines. Skips lines that are not JSON objects. The signal destroys the stream. */
export async function* readJsonLines(
  stream: AsyncIterable<Buffer | string>,
  signal?: AbortSignal,
): AsyncGenerator<Record<string, unknown>, void, undefined> {
  const destroy = () => "destroy" in stream && typeof stream.destroy === "function" && stream.destroy();
  signal?.addEventListener("abort", destroy, { once: true });
  if (signal?.aborted) destroy();
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
    // An incomplete line, or not JSON. The next line may be valid.
    return undefined;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
