import { expect, test } from "vitest";
import { toFolderTable } from "./folder-times.ts";

test("the table names each folder with its files, its seconds and its slowest file, the slowest folder first", () => {
  const table = toFolderTable([
    { file: "test/keys/a.test.ts", durationMs: 400 },
    { file: "test/turns/log/b.test.ts", durationMs: 1_250 },
    { file: "test/turns/start/c.test.ts", durationMs: 10_000 },
    { file: "test/log.test.ts", durationMs: 90 },
  ]);
  expect(table).toEqual([
    "folder            files  seconds  slowest file (seconds)",
    "test/turns            2     11.3  test/turns/start/c.test.ts (10.0)",
    "test/keys             1      0.4  test/keys/a.test.ts (0.4)",
    "test/log.test.ts      1      0.1  test/log.test.ts (0.1)",
  ]);
});
