import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { findBrokenLinks } from "../../docs/broken-links.ts";
import { openTempDir } from "../support/temp-dir.ts";

test("a relative link to a missing file or heading is found, links in code and to other sites are not", async () => {
  await using root = await openTempDir();
  await mkdir(join(root.path, "docs/decisions"), { recursive: true });
  const readme = "[a](docs/a.md) [b](docs/b.md) [c](docs/a.md#the-right-heading) [d](docs/a.md#wrong)\n";
  await writeFile(join(root.path, "README.md"), readme);
  await writeFile(
    join(root.path, "docs/a.md"),
    "# The right `heading`\n\n```md\n[x](y.md)\n```\n[z](https://x.org)",
  );
  await writeFile(
    join(root.path, "docs/decisions/0001.md"),
    "[up](../a.md) [gone](gone.ts) [here](#nowhere)",
  );
  expect(await findBrokenLinks(root.path)).toEqual([
    { file: "README.md", link: "docs/b.md" },
    { file: "README.md", link: "docs/a.md#wrong" },
    { file: "docs/decisions/0001.md", link: "gone.ts" },
    { file: "docs/decisions/0001.md", link: "#nowhere" },
  ]);
});
