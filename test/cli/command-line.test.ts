import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { answerArguments } from "../../cli/command-line.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));

/** Runs a program of the project without any setting. A program that starts its work fails or is ended. */
async function run(program: string, ...args: string[]) {
  return new Promise<{ code: unknown; stdout: string; stderr: string }>((resolve) => {
    const options = { cwd: ROOT, env: { PATH: process.env["PATH"] }, timeout: 250_000 };
    execFile(process.execPath, [program, ...args], options, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : error.code, stdout, stderr });
    });
  });
}

const PROGRAMS = [
  "server/main.ts",
  "db/migrate-main.ts",
  "server/master-keys/adopt-main.ts",
  "demo/main.ts",
  "bench/main.ts",
  "bench/soak/main.ts",
  "build/main.ts",
];

test.each(PROGRAMS)(
  "%s --help prints a usage and starts nothing, and an unknown option is refused",
  async (program) => {
    const [helped, refused] = await Promise.all([run(program, "--help"), run(program, "--hepl")]);
    expect(helped).toMatchObject({ code: 0, stderr: "" });
    expect(helped.stdout).toContain("npm run");
    expect(refused).toMatchObject({ code: 2, stdout: "" });
    expect(refused.stderr).toBe('unknown argument "--hepl": did you mean --help?; --help shows the usage\n');
  },
);

const program = { usage: "\nthe usage\n", settings: ["ORCH_PORT", "ORCH_DATA_DIR"] };

test("--help and -h come before everything else, and --version names the version", () => {
  expect(answerArguments(["--nonsense", "-h"], program)).toEqual({ text: "the usage\n", exitCode: 0 });
  expect(answerArguments(["--version"], program)?.text).toMatch(/^enginehouse \d+\.\d+\.\d+\n$/);
  expect(answerArguments([], program)).toBeUndefined();
});

test.each([
  [
    "--port=8081",
    'unknown argument "--port=8081": settings are environment variables, so set ORCH_PORT before',
  ],
  ["--data-dir", "set ORCH_DATA_DIR before the command"],
  ["ORCH_PORT=8081", "set ORCH_PORT before the command"],
  ["--verison", "did you mean --version?"],
  ["something-quite-different", 'unknown argument "something-quite-different"; --help'],
])("%s is refused with the nearest known name", (argument, text) => {
  const answer = answerArguments([argument], program);
  expect(answer?.exitCode).toBe(2);
  expect(answer?.text).toContain(text);
});

const takes = (argument: string) => argument === "relay";

test("a program may take arguments of its own", () => {
  expect(answerArguments(["relay"], { ...program, takes })).toBeUndefined();
  expect(answerArguments(["relay", "other"], { ...program, takes })?.text).toContain('"other"');
});
