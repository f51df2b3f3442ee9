import { readFile } from "node:fs/promises";
import { extname, join } from "node:path";

/** A file of the repository in a page, between this line and the next one. */
const INCLUDED = /<!-- file: (?<path>\S+), written by `npm run docs` -->.*?<!-- end of file -->/gs;

/** Returns the page with today's text of each file that it shows. Throws if a file does not exist. */
export async function includeFiles(root: string, page: string): Promise<string> {
  const paths = [...page.matchAll(INCLUDED)].map((match) => match.groups?.["path"] ?? "");
  const blocks = await Promise.all(paths.map(async (path) => toBlock(root, path)));
  return page.replaceAll(INCLUDED, () => blocks.shift() ?? "");
}

async function toBlock(root: string, path: string): Promise<string> {
  const code = (await readFile(join(root, path), "utf8")).trimEnd();
  return [
    `<!-- file: ${path}, written by \`npm run docs\` -->`,
    `\`\`\`${extname(path).slice(1)}\n${code}\n\`\`\``,
    "<!-- end of file -->",
  ].join("\n\n");
}
