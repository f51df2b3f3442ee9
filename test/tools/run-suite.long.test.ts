import { mkdir, realpath, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openTempDir, type TempDir } from "../support/temp-dir.ts";
import { runSuite } from "./run-suite.ts";
import { addResults, toClosingLines } from "./suite-result.ts";

const CONFIG = `export default { test: { globals: true, include: ["**/*.test.mjs"] } };`;
const PASSES = `test("passes", () => {}); test.skip("is skipped", () => {});`;
const FAILS = `describe("a group", () => { test("fails", () => { expect(1).toBe(2); }); test("passes", () => {}); });`;
const FAILS_ONCE = `
  import { existsSync, writeFileSync } from "node:fs";
  const marker = new URL("ran-once", import.meta.url);
  test("fails once", () => {
    const isFirst = !existsSync(marker);
    writeFileSync(marker, "");
    expect(isFirst).toBe(false);
  });
  test("passes", () => {});
`;
const FAILS_TO_LOAD_ONCE = `
  import { existsSync, writeFileSync } from "node:fs";
  const marker = new URL("loaded-once", import.meta.url);
  if (!existsSync(marker)) {
    writeFileSync(marker, "");
    throw new Error("not today");
  }
  test("loads", () => {});
`;
const REJECTS = `test("passes", async () => {
  void Promise.reject(new Error("caught by no test"));
  await new Promise((resolve) => setTimeout(resolve, 50));
});`;

/** A vitest project of its own, with one folder `a`. */
async function openProject(files: Record<string, string>): Promise<TempDir> {
  const project = await openTempDir();
  await mkdir(join(project.path, "a"));
  await writeFile(join(project.path, "vitest.config.mjs"), CONFIG);
  for (const [name, text] of Object.entries(files)) await writeFile(join(project.path, "a", name), text);
  return project;
}

async function runProject(files: Record<string, string>) {
  await using project = await openProject(files);
  // Vitest names files by their real path.
  const root = await realpath(project.path);
  const env = { PATH: process.env["PATH"], TMPDIR: project.path };
  // Awaited here, so that the project stays until the suite has ended.
  return await runSuite({ name: "fixture", root, args: ["a"], env, isQuiet: true });
}

test("a file that fails twice fails the suite and is named with its test", async () => {
  const result = await runProject({ "passes.test.mjs": PASSES, "fails.test.mjs": FAILS });
  expect(result).toEqual({
    passed: 2,
    failed: 1,
    skipped: 1,
    flaky: [],
    failures: ["a/fails.test.mjs › a group › fails"],
  });
});

test("a test that passes only the second time is reported as flaky and does not fail the suite", async () => {
  const files = {
    "once.test.mjs": FAILS_ONCE,
    "load.test.mjs": FAILS_TO_LOAD_ONCE,
    "passes.test.mjs": PASSES,
  };
  const result = await runProject(files);
  expect(result).toMatchObject({ passed: 4, failed: 0, skipped: 1, failures: [] });
  expect(result.flaky.toSorted((a, b) => a.localeCompare(b))).toEqual([
    "a/load.test.mjs › (outside of its tests)",
    "a/once.test.mjs › fails once",
  ]);
});

test("an error that belongs to no test fails the suite, beside a flaky test too", async () => {
  const result = await runProject({ "rejects.test.mjs": REJECTS, "once.test.mjs": FAILS_ONCE });
  expect(result).toMatchObject({
    passed: 3,
    failed: 1,
    flaky: ["a/once.test.mjs › fails once"],
    failures: ["fixture › (an error outside of its files, or a crash)"],
  });
});

test("the closing lines name failed and flaky tests and sum up all suites", () => {
  const quick = { passed: 10, failed: 1, skipped: 2, flaky: ["x › y"], failures: ["b › c"] };
  const long = { passed: 5, failed: 0, skipped: 0, flaky: ["d › e"], failures: [] };
  expect(toClosingLines(addResults([quick, long]))).toEqual([
    "FAILED b › c",
    "FLAKY x › y",
    "FLAKY d › e",
    "15 passed, 1 failed, 2 skipped",
  ]);
});
