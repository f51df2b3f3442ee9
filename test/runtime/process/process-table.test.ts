import { expect, it } from "vitest";
import {
  findProcess,
  listProcesses,
  readMemoryBytes,
  toLinuxRow,
  toPsRow,
} from "../../../server/runtime/process/process-table.ts";

it("a line of /proc is parsed whatever the process's name is", () => {
  const rest = "S 7 77 78 0 -1 4194560 100 0 0 0 12 30 0 0 20 0 11 0 123456 1000 250";
  for (const name of ["node", "a b", ") R 9 9 (", "((("]) {
    expect(toLinuxRow(`42 (${name}) ${rest}`)).toMatchObject({
      pid: 42,
      parentId: 7,
      groupId: 77,
      sessionId: 78,
      state: "running",
      startTicks: "123456",
      cpuNanoseconds: 420_000_000n,
    });
  }
  expect(toLinuxRow("")).toBeUndefined();
  expect(toLinuxRow("42 (node")).toBeUndefined();
});

it("a line of ps is parsed as Linux and macOS print it", () => {
  expect(toPsRow("  42     7    77 Ssl   2048 1-02:03:04 Mon Nov 23 03:20:10 2026")).toEqual({
    pid: 42,
    parentId: 7,
    groupId: 77,
    sessionId: null,
    state: "running",
    startTicks: null,
    startedAtMs: Date.UTC(2026, 10, 23, 3, 20, 10),
    cpuNanoseconds: 93_784_000_000_000n,
    memoryBytes: 2048 * 1024,
  });
  expect(toPsRow("42 7 77 T+ 10 1:02.50 Sun Nov  1 00:00:00 2026")).toMatchObject({
    state: "stopped",
    cpuNanoseconds: 62_500_000_000n,
  });
  expect(toPsRow("42 7 77 Z 0 0:00.00 Sun Nov  1 00:00:00 2026")).toMatchObject({ state: "zombie" });
  expect(toPsRow("")).toBeUndefined();
});

it("an existing process is found, and a missing one is not", async () => {
  const self = await findProcess(process.pid);
  expect(self).toMatchObject({ pid: process.pid, state: "running" });
  if (self !== undefined) expect(readMemoryBytes(self)).toBeGreaterThan(1024 * 1024);
  expect(await findProcess(2 ** 30)).toBeUndefined();
  expect(await listProcesses()).toContainEqual({ ...self, cpuNanoseconds: expect.anything() });
});
