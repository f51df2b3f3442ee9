import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { DataDirLockedError, lockDataDir } from "../../db/data-dir-lock.ts";
import { openTempDir } from "../support/temp-dir.ts";
import { startOpener } from "./embedded/opener.ts";

test("after a holder was killed, exactly one of ten processes gets the lock, and the others name its pid", async () => {
  await using dir = await openTempDir();
  const killed = await startOpener(dir.path, "lock-only");
  expect(killed.output).toContain("serving");
  await killed.kill();

  const openers = await Promise.all(Array.from({ length: 10 }, () => startOpener(dir.path, "lock-only")));
  const winners = openers.filter(({ output }) => output.startsWith("serving"));
  const refusals = openers.map(({ output }) => output).filter((output) => output.startsWith("refused"));
  await Promise.all(openers.map(async (opener) => opener.close()));
  expect(winners).toHaveLength(1);
  const expected = `refused process ${winners[0]?.pid} already serves the data directory ${dir.path}`;
  expect(refusals.filter((output) => output.startsWith(expected))).toHaveLength(9);
});

test("a second lock in the same process is refused, and closing the first one releases the directory", async () => {
  await using dir = await openTempDir();
  const first = await lockDataDir(dir.path);
  await expect(lockDataDir(dir.path)).rejects.toThrow(DataDirLockedError);
  await expect(lockDataDir(dir.path)).rejects.toThrow(`process ${process.pid} already serves`);
  await first.close();
  await first.close();
  await using second = await lockDataDir(dir.path);
  expect(second).toBeDefined();
});

test("an error names the directory that cannot be created", async () => {
  await using dir = await openTempDir();
  const file = join(dir.path, "file");
  await writeFile(file, "");
  await expect(lockDataDir(join(file, "data"))).rejects.toThrow(/ENOTDIR.*file/);
});
