import { open } from "node:fs/promises";
import { expect, test } from "vitest";
import { Spawner } from "../../../server/runtime/process/spawner.ts";

async function spawn(spawner: Spawner, script: string, environment: Record<string, string> = {}) {
  const output = await open("/dev/null", "a");
  try {
    const args = ["-c", script];
    return await spawner.spawn({ args, environment, stdout: output.fd, stderr: output.fd });
  } finally {
    await output.close();
  }
}

test("a process's end is told with its exit code, or with 128 plus its signal", async () => {
  await using spawner = new Spawner();
  const [failing, killed] = [await spawn(spawner, "exit 9"), await spawn(spawner, "sleep 1000")];
  killed.kill();
  expect(await Promise.all([failing.exited, killed.exited])).toEqual([9, 137]);
  expect(failing.hasExited).toBe(true);
});

test("a process that the system refuses to start fails alone", async () => {
  await using spawner = new Spawner();
  const other = await spawn(spawner, "sleep 1000");
  await expect(spawn(spawner, "exit 0", { LARGE: "x".repeat(4_000_000) })).rejects.toThrow("E2BIG");
  other.kill();
  expect(await other.exited).toBe(137);
  expect(await (await spawn(spawner, "exit 3")).exited).toBe(3);
});

test("after the close a process's end is unknown, the process continues, and nothing new starts", async () => {
  const spawner = new Spawner();
  const child = await spawn(spawner, "exec sleep 1");
  await spawner[Symbol.asyncDispose]();
  expect(await child.exited).toBeUndefined();
  expect(child.hasExited).toBe(false);
  await expect(spawn(spawner, "exit 0")).rejects.toThrow("the runtime is closed");
});
