import { execFile, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, test, vi } from "vitest";

const PROGRAM = fileURLToPath(new URL("support/log-program.ts", import.meta.url));

/** Runs a program that logs and then ends. Returns the lines on its stdout. */
async function runProgram(end: string): Promise<string[]> {
  return new Promise((resolve) => {
    execFile(process.execPath, [PROGRAM, end], (_error, stdout) => {
      resolve(toLines(stdout));
    });
  });
}

const toLines = (stdout: string) => stdout.split("\n").filter((line) => line !== "");
const toMessages = (lines: readonly string[]) =>
  lines.map((line) => (JSON.parse(line) as { msg: string }).msg);

const ALL = Array.from({ length: 100 }, (_, n) => `line ${n}`);

test.each(["nothing left to do", "process.exit", "an uncaught exception", "an unhandled rejection"])(
  "every line is on stdout when the process ends by %s",
  async (end) => {
    const lines = await runProgram(end);
    expect(toMessages(lines)).toEqual(ALL);
  },
);

test("a warning and the lines before it are on stdout before the next statement runs", async () => {
  const lines = await runProgram("a kill after a warning");
  expect(toMessages(lines)).toEqual([...ALL, "the last one"]);
});

test("lines are written while the process runs", async () => {
  const child = spawn(process.execPath, [PROGRAM, "keep running"], { stdio: ["ignore", "pipe", "inherit"] });
  try {
    let stdout = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
    await vi.waitFor(() => expect(toMessages(toLines(stdout))).toEqual(ALL), { timeout: 30_000 });
  } finally {
    child.kill("SIGKILL");
  }
});
