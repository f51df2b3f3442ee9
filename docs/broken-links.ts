import { readFile, readdir, stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";

export interface BrokenLink {
  /** The page, below the root. */
  file: string;
  link: string;
}

/** The relative links of README.md and docs/**.md whose file, or whose heading in a page, does not exist. */
export async function findBrokenLinks(root: string): Promise<BrokenLink[]> {
  const broken: BrokenLink[] = [];
  for (const file of await listPages(root)) {
    const page = join(root, file);
    for (const link of listRelativeLinks(await readFile(page, "utf8"))) {
      if (!(await isThere(page, link))) broken.push({ file, link });
    }
  }
  return broken;
}

async function listPages(root: string): Promise<string[]> {
  const files = await readdir(join(root, "docs"), { recursive: true });
  return ["README.md", ...files.filter((file) => file.endsWith(".md")).map((file) => `docs/${file}`)];
}

/** The targets of Markdown links outside of code. */
function listRelativeLinks(markdown: string): string[] {
  const prose = withoutCode(markdown);
  const targets = Array.from(
    prose.matchAll(/\]\((?<target>[^)\s]+)\)/g),
    (match) => match.groups?.["target"],
  );
  return targets.filter((target) => target !== undefined).filter((target) => !/^[a-z]+:/.test(target));
}

function withoutCode(markdown: string): string {
  return markdown.replaceAll(/^```.*?^```/gms, "");
}

async function isThere(page: string, link: string): Promise<boolean> {
  const [path = "", heading] = link.split("#");
  const target = path === "" ? page : resolve(dirname(page), path);
  const found = await stat(target).catch(() => undefined);
  if (found === undefined) return false;
  if (heading === undefined || !target.endsWith(".md")) return true;
  const headings = withoutCode(await readFile(target, "utf8")).matchAll(/^#+ (?<title>.+)$/gm);
  return Array.from(headings, (match) => toAnchor(match.groups?.["title"] ?? "")).includes(heading);
}

/** As GitHub names the anchor of a heading. */
function toAnchor(title: string): string {
  return title
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N}\s_-]/gu, "")
    .trim()
    .replaceAll(/\s/g, "-");
}
