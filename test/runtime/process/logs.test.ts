import { appendFile, readFile, stat, utimes } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { ProcessLogs } from "../../../server/runtime/process/logs.ts";
import { openTempDir } from "../../support/temp-dir.ts";

it("a line has the time of the first sample that includes it, and both streams merge by time", async () => {
  await using dir = await openTempDir();
  const logs = new ProcessLogs();
  const files = (["stdout", "stderr"] as const).map((stream) => ({ stream, path: join(dir.path, stream) }));
  const [out, err] = files as [(typeof files)[0], (typeof files)[0]];
  const writeAt = async (file: typeof out, text: string, second: number) => {
    await appendFile(file.path, text);
    await utimes(file.path, second, second);
    await logs.sample(file);
  };
  await writeAt(out, "one\n", 10);
  await writeAt(err, "two\n", 20);
  await writeAt(out, "three\nfour\n", 30);
  await writeAt(err, "no newline yet", 40);
  expect(await logs.tail(files, 10)).toEqual([
    { at: instant(10), stream: "stdout", line: "one" },
    { at: instant(20), stream: "stderr", line: "two" },
    { at: instant(30), stream: "stdout", line: "three" },
    { at: instant(30), stream: "stdout", line: "four" },
    { at: instant(40), stream: "stderr", line: "no newline yet" },
  ]);
  expect((await logs.tail(files, 2)).map(({ line }) => line)).toEqual(["four", "no newline yet"]);
});

it("a file that grows too large is cut, and its last lines can still be read", async () => {
  await using dir = await openTempDir();
  const logs = new ProcessLogs();
  const file = { stream: "stdout", path: join(dir.path, "stdout") } as const;
  const line = "y".repeat(1023);
  await appendFile(file.path, `${line}\n`.repeat(11 * 1024));
  await logs.sample(file);
  expect((await stat(file.path)).size).toBe(0);
  expect((await stat(`${file.path}.1`)).size).toBe(1024 * 1024);
  await appendFile(file.path, "after\n");
  const lines = await logs.tail([file], 3);
  expect(lines.map((entry) => entry.line)).toEqual([line, line, "after"]);
  expect(await readFile(file.path, "utf8")).toBe("after\n");
});

it("a missing file has no lines", async () => {
  const file = { stream: "stdout", path: "/nowhere/at/all" } as const;
  expect(await new ProcessLogs().tail([file], 10)).toEqual([]);
});

function instant(second: number): string {
  return new Date(second * 1000).toISOString();
}
