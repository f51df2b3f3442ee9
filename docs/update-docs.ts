import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { format } from "prettier";
import { toConfigTable } from "../server/config/table.ts";

/*
 * The configuration table of the README comes from the code: `npm run docs` writes it, and `--check`, which is part
 * of `npm run check`, fails when the two differ.
 */

const README = join(import.meta.dirname, "../README.md");
const START = "<!-- configuration: written by `npm run docs` -->";
const END = "<!-- end of configuration -->";

const text = await readFile(README, "utf8");
const start = text.indexOf(START);
const end = text.indexOf(END);
if (start < 0 || end < start) throw new Error(`README.md lacks ${START} … ${END}`);
const draft = `${text.slice(0, start + START.length)}\n\n${toConfigTable()}\n\n${text.slice(end)}`;
const written = await format(draft, { parser: "markdown", printWidth: 110 });

if (!process.argv.includes("--check")) await writeFile(README, written);
else if (written !== text) {
  console.error("The configuration table in README.md is not what the code says: run `npm run docs`.");
  process.exitCode = 1;
}
