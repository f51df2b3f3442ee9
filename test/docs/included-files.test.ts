import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { includeFiles } from "../../docs/included-files.ts";
import { openTempDir } from "../support/temp-dir.ts";

const mark = (path: string) => `<!-- file: ${path}, written by \`npm run docs\` -->`;
const END = "<!-- end of file -->";

test("a page shows today's text of each file, whatever it showed before", async () => {
  await using root = await openTempDir();
  await writeFile(join(root.path, "a.ts"), "const cost = `$& $1`;\n");
  await writeFile(join(root.path, "b.html"), "<p></p>\n");
  const page = `# A\n\n${mark("a.ts")}\nold\n${END}\n\ntext\n\n${mark("b.html")}\n${END}\n`;
  const shown = await includeFiles(root.path, page);
  expect(shown).toBe(
    `# A\n\n${mark("a.ts")}\n\n\`\`\`ts\nconst cost = \`$& $1\`;\n\`\`\`\n\n${END}\n\ntext\n\n` +
      `${mark("b.html")}\n\n\`\`\`html\n<p></p>\n\`\`\`\n\n${END}\n`,
  );
  expect(await includeFiles(root.path, shown)).toBe(shown);
});

test("a file that does not exist is an error", async () => {
  await using root = await openTempDir();
  await expect(includeFiles(root.path, `${mark("gone.ts")}\n${END}`)).rejects.toThrow("gone.ts");
});
