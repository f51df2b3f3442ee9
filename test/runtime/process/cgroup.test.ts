import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, it } from "vitest";
import {
  createCgroup,
  endCgroup,
  findOwnCgroup,
  toCgroupPath,
} from "../../../server/runtime/process/cgroup.ts";

const ROUNDS = 30;
const CALLS = 20;

it.skipIf(findOwnCgroup() === undefined)(
  "calls that end the same cgroup at the same time all succeed",
  async () => {
    for (let round = 0; round < ROUNDS; round += 1) {
      const path = toCgroupPath(findOwnCgroup(), "cgroup-test", randomBytes(8).toString("hex")) ?? "";
      expect(await createCgroup(path)).toBe(path);
      const child = spawn("sleep", ["1000"], { stdio: "ignore" });
      const exited = once(child, "exit");
      try {
        await once(child, "spawn");
        await writeFile(join(path, "cgroup.procs"), String(child.pid));
        // Some calls write to the cgroup while others remove it.
        const ends = Array.from({ length: CALLS }, async (_, index) => {
          await sleep(index);
          return endCgroup(path, 20_000);
        });
        expect(await Promise.all(ends)).toEqual(ends.map(() => true));
        await exited;
      } finally {
        child.kill("SIGKILL");
      }
    }
  },
);
