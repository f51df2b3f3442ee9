import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { getPostgresBinaries } from "../../../db/embedded/binaries.ts";
import { initialiseCluster } from "../../../db/embedded/cluster.ts";
import { getLauncher, rootLaunchers } from "../../../db/embedded/launcher.ts";
import { stopPostmaster } from "../../../db/embedded/postmaster.ts";
import { findProcess } from "../../../db/process-identity.ts";
import { startPostmaster } from "../../../db/embedded/start-postmaster.ts";
import { openTempDir } from "../../support/temp-dir.ts";

describe.skipIf(process.getuid?.() !== 0)("as root", () => {
  test("each launcher that works here can read a directory that is closed to others, and launchers can alternate", async () => {
    await using dir = await openTempDir();
    const dataDir = join(dir.path, "home", "data");
    await mkdir(join(dir.path, "home"), { mode: 0o700 });
    const binaries = await getPostgresBinaries();
    // A container may forbid the first launcher; a machine without the capability, the second.
    const tried = await Promise.allSettled(
      rootLaunchers.map((launcher) => getLauncher(binaries.postgres, [launcher])),
    );
    const working = tried.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
    const [first] = working;
    if (first === undefined) throw new Error("no launcher can run Postgres as root here");
    const cluster = await initialiseCluster({ dataDir, binaries, launcher: first, durable: false });
    for (const launcher of [...working, first]) {
      const deadlineAt = Date.now() + 60_000;
      const started = await startPostmaster({ cluster, binaries, launcher, durable: false, deadlineAt });
      await stopPostmaster(started.process);
      expect(await findProcess(started.process.pid)).toBeUndefined();
    }
  });
});

test("a launcher that does not work is skipped, and without a working one the error names ORCH_DATABASE_URL", async () => {
  const binaries = await getPostgresBinaries();
  const broken = { prefix: ["no-such-program"], ownerUid: undefined };
  const asRoot = process.getuid?.() === 0;
  const working = asRoot ? rootLaunchers : [{ prefix: [], ownerUid: undefined }];
  expect(await getLauncher(binaries.postgres, [broken, ...working])).not.toBe(broken);
  await expect(getLauncher(binaries.postgres, [broken])).rejects.toThrow(
    /no-such-program.*ORCH_DATABASE_URL/,
  );
});
