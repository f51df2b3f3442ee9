import { execFile } from "node:child_process";
import { mkdir, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { openDataDir } from "../../server/boot/data-dir.ts";
import { openTempDir } from "../support/temp-dir.ts";
import { openTestDatabase } from "../support/test-database.ts";
import { ADMIN_KEY, spawnService, startService } from "./spawn-service.ts";

const run = promisify(execFile);

const toEnvironment = (dataDir: string, databaseUrl: string) => ({
  ORCH_DATA_DIR: dataDir,
  ORCH_DATABASE_URL: databaseUrl,
  ORCH_ADMIN_KEY: ADMIN_KEY,
});

describe("the data directory", () => {
  test.each([
    ["below /proc", async () => "/proc/enginehouse/data", "cannot be made"],
    [
      "below a file",
      async (home: string) => {
        await writeFile(join(home, "file"), "");
        return join(home, "file", "data");
      },
      "cannot be made",
    ],
    [
      "a loop of links",
      async (home: string) => {
        await symlink(join(home, "loop"), join(home, "loop"));
        return join(home, "loop");
      },
      "cannot be made",
    ],
    ["/proc", async () => "/proc", "cannot be written"],
  ])("is refused at once by name if it is %s", async (_name, prepare, problem) => {
    await using home = await openTempDir();
    const dataDir = await prepare(home.path);
    const opened = openDataDir(dataDir, { holdsDatabase: false });
    await expect(opened).rejects.toThrow(`the data directory ${dataDir} ${problem}`);
  });

  test("that cannot be made ends the start at once with 1, and the log says what to set", async () => {
    const service = spawnService({ ORCH_DATA_DIR: "/proc/enginehouse/data", ORCH_ADMIN_KEY: ADMIN_KEY });
    expect(await service.exited).toBe(1);
    expect(service.output()).toContain("the data directory /proc/enginehouse/data cannot be made");
    expect(service.output()).toContain("set ORCH_DATA_DIR to a directory that this user may write");
  });

  test("is made with its parents", async () => {
    await using home = await openTempDir();
    const opened = await openDataDir(join(home.path, "a", "b", "c"), { holdsDatabase: false });
    await opened.check();
    expect(await readdir(join(home.path, "a", "b", "c"))).toEqual([]);
  });

  test("that cannot be written any more degrades the service, and the log names the path", async () => {
    await using home = await openTempDir();
    await using database = await openTestDatabase();
    const dataDir = join(home.path, "data");
    await using service = await startService(toEnvironment(dataDir, database.url));
    const readiness = async () => (await fetch(`${service.url}/readyz`)).json();
    await expect.poll(readiness).toMatchObject({ ok: true, subsystems: { dataDir: "ok" } });
    await rm(dataDir, { recursive: true });
    await expect.poll(readiness).toMatchObject({ ok: true, subsystems: { dataDir: "degraded" } });
    expect(service.output()).toContain(`the data directory ${dataDir} cannot be written`);
    await mkdir(dataDir);
    await expect.poll(readiness).toMatchObject({ subsystems: { dataDir: "ok" } });
  });

  test("on a full disk cannot be written, and the check says so", async ({ skip }) => {
    await using home = await openTempDir();
    const disk = join(home.path, "disk");
    await mkdir(disk);
    const isMounted = await run("mount", ["-t", "tmpfs", "-o", "size=64k", "tmpfs", disk]).then(
      () => true,
      () => false,
    );
    if (!isMounted) skip("this user may not mount a small disk");
    try {
      const dataDir = await openDataDir(disk, { holdsDatabase: true });
      await writeFile(join(disk, "filler"), Buffer.alloc(64 * 1024)).catch(() => {
        // The disk is full, as it should be.
      });
      await expect(dataDir.check()).rejects.toThrow(/data directory .*disk cannot be written \(ENOSPC/);
      await rm(join(disk, "filler"));
      await dataDir.check();
    } finally {
      await run("umount", [disk]);
    }
  });
});
