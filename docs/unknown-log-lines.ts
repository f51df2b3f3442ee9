import { readFile, readdir } from "node:fs/promises";
import { join } from "node:path";

const START = "<!-- log lines -->";
const END = "<!-- end of log lines -->";

/** Messages in the list of docs/operations.md that no source file below `server/` has as a string. */
export async function findUnknownLogLines(root: string): Promise<string[]> {
  const page = await readFile(join(root, "docs/operations.md"), "utf8");
  const list = page.slice(page.indexOf(START), page.indexOf(END));
  const messages = Array.from(
    list.matchAll(/^\| `(?<message>[^`]+)`/gm),
    (match) => match.groups?.["message"] ?? "",
  );
  if (messages.length === 0) return ["(docs/operations.md has no list of log lines)"];
  const files = (await readdir(join(root, "server"), { recursive: true })).filter((file) =>
    file.endsWith(".ts"),
  );
  const sources = await Promise.all(files.map(async (file) => readFile(join(root, "server", file), "utf8")));
  return messages.filter((message) => !sources.some((source) => source.includes(`"${message}"`)));
}
