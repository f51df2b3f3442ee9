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

test("a warning carries no secret and no key of ours, however its fields nest and encode them", async () => {
  const secret = 'pa"ss"word';
  const key = `ehe_${"k".repeat(36)}`;
  const fields = {
    error: `bad ${JSON.stringify(secret)}`,
    [secret]: [{ url: `/x/${key}?a=${encodeURIComponent(secret)}` }],
    n: 1.5,
  };
  const text = `
    import { openLog } from ${JSON.stringify(new URL("../server/log.ts", import.meta.url).href)};
    import { Secrets } from ${JSON.stringify(new URL("../server/secrets/secrets.ts", import.meta.url).href)};
    const log = openLog({ level: "info", pretty: false }, { secrets: new Secrets([${JSON.stringify(secret)}]) });
    log.child({ loop: "x" }).warn(${JSON.stringify(fields)}, "failed");`;
  const stdout = await new Promise<string>((resolve) => {
    execFile(process.execPath, ["--input-type=module", "-e", text], (_error, out) => resolve(out));
  });
  expect(JSON.parse(stdout)).toMatchObject({ loop: "x", msg: "failed", n: 1.5 });
  expect(stdout).not.toMatch(/pa\W*ss|%22|ehe_/);
});
