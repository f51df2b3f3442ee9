import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { format } from "prettier";
import { toConfigTable } from "../server/config/config-table.ts";
import { toAuthorisationTables } from "./authorisation-table.ts";
import { findBrokenLinks } from "./broken-links.ts";
import { includeFiles } from "./included-files.ts";
import { findUnknownLogLines } from "./unknown-log-lines.ts";

/*
 * `npm run docs` writes the table of settings into docs/configuration.md, the tables of who may call what into
 * docs/authorisation.md, and the examples into the pages that show them.
 * `npm run check:docs` (`--check`) fails if one of them differs from the code, if a relative link of the documentation
 * names a file that does not exist, or if docs/operations.md lists a log line that the code does not write.
 */

const ROOT = join(import.meta.dirname, "..");
const TABLES = [
  { page: "docs/configuration.md", toTable: toConfigTable },
  { page: "docs/authorisation.md", toTable: toAuthorisationTables },
];
const START = "<!-- table: written by `npm run docs` -->";
const END = "<!-- end of table -->";
const isCheck = process.argv.includes("--check");

const problems: string[] = [];
for (const { page, toTable } of TABLES) {
  const path = join(ROOT, page);
  const text = await readFile(path, "utf8");
  const start = text.indexOf(START);
  const end = text.indexOf(END);
  if (start < 0 || end < start) throw new Error(`${page} lacks the lines ${START} and ${END}`);
  const draft = `${text.slice(0, start + START.length)}\n\n${toTable()}\n\n${text.slice(end)}`;
  const written = await format(draft, { parser: "markdown", printWidth: 110 });
  if (!isCheck) await writeFile(path, written);
  else if (written !== text) problems.push(`${page} differs from the code: run \`npm run docs\``);
}
for (const page of ["README.md", "docs/gateways.md"]) {
  const path = join(ROOT, page);
  const before = await readFile(path, "utf8");
  const after = await includeFiles(ROOT, before);
  if (after === before) continue;
  if (isCheck) problems.push(`${page} shows an old example: run \`npm run docs\``);
  else await writeFile(path, after);
}
for (const { file, link } of await findBrokenLinks(ROOT)) {
  problems.push(`${file} links to ${link}, which does not exist`);
}
for (const line of await findUnknownLogLines(ROOT)) {
  problems.push(`docs/operations.md lists the log line "${line}", which the code does not write`);
}
for (const problem of problems) console.error(problem);
if (problems.length > 0) process.exitCode = 1;
