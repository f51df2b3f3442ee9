import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { REPORT_VARIABLE, type VitestReport } from "./suite-report.ts";
import { judgeFiles, type FileResult, type SuiteResult } from "./suite-result.ts";

export interface Suite {
  /** Names the suite in the lines about a failure outside of its files. */
  name: string;
  /** Folder with the configuration of vitest; failures name files below it. */
  root: string;
  /** Arguments of `vitest run`. */
  args: readonly string[];
  env: NodeJS.ProcessEnv;
  /** Hides the output of vitest. */
  isQuiet?: boolean;
}

interface VitestRun extends VitestReport {
  /** 0 if everything passed. */
  exitCode: number;
}

const VITEST = join(import.meta.dirname, "../../node_modules/vitest/vitest.mjs");
const SUITE_REPORT = join(import.meta.dirname, "suite-report.ts");
const FOLDER_TIMES = join(import.meta.dirname, "folder-times.ts");
const SIGNALS = ["SIGINT", "SIGTERM"] as const;

/**
 * Runs a suite, then each failed file once more, alone. A test that passes only then is flaky; a file that fails
 * twice fails the suite. So does an error outside of all files, which is not tried again. Throws when a signal ends
 * the suite; the signal is passed on to vitest.
 */
export async function runSuite(suite: Suite): Promise<SuiteResult> {
  const first = await runVitest(suite, suite.args);
  const failedFiles = first.files.filter(({ failed }) => failed.length > 0).map(({ file }) => file);
  const second = new Map<string, FileResult>();
  const outside = hasOutsideError(first) ? [suite.name] : [];
  for (const file of failedFiles) {
    console.log(`\n== once more, alone: ${file}`);
    const again = await runVitest(suite, [...suite.args.filter(isOption), join(suite.root, file)]);
    const result = again.files.find((one) => one.file === file);
    if (result !== undefined) second.set(file, result);
    if (hasOutsideError(again)) outside.push(file);
  }
  const result = judgeFiles(first.files, second);
  result.failed += outside.length;
  result.failures.push(...outside.map((name) => `${name} › (an error outside of its files, or a crash)`));
  return result;
}

/** A run that fails without a failed file crashed, or an error occurred in no particular test. */
function hasOutsideError({ files, unhandledErrors, exitCode }: VitestRun): boolean {
  return unhandledErrors > 0 || (exitCode !== 0 && files.every(({ failed }) => failed.length === 0));
}

/** Options of vitest in a suite's arguments are written `--name=value`; everything else names files. */
function isOption(argument: string): boolean {
  return argument.startsWith("--");
}

async function runVitest(suite: Suite, args: readonly string[]): Promise<VitestRun> {
  const directory = await mkdtemp(join(tmpdir(), "enginehouse-suite-"));
  const reportPath = join(directory, "report.json");
  const reporters = ["default", FOLDER_TIMES, SUITE_REPORT].map((name) => `--reporter=${name}`);
  const child = spawn(process.execPath, [VITEST, "run", ...args, ...reporters], {
    cwd: suite.root,
    stdio: suite.isQuiet === true ? "ignore" : ["ignore", "inherit", "inherit"],
    env: { ...suite.env, [REPORT_VARIABLE]: reportPath },
  });
  let interruptedBy: NodeJS.Signals | undefined;
  const interrupt = (signal: NodeJS.Signals) => {
    interruptedBy = signal;
    child.kill(signal);
  };
  for (const signal of SIGNALS) process.on(signal, interrupt);
  try {
    const [code] = (await once(child, "exit")) as [number | null];
    if (interruptedBy !== undefined) throw new Error(`${suite.name} was interrupted by ${interruptedBy}`);
    return { ...(await readReport(reportPath)), exitCode: code ?? 1 };
  } finally {
    for (const signal of SIGNALS) process.off(signal, interrupt);
    await rm(directory, { recursive: true, force: true });
  }
}

/** A vitest that crashed leaves no report. */
async function readReport(path: string): Promise<VitestReport> {
  const text = await readFile(path, "utf8").catch(() => undefined);
  return text === undefined ? { files: [], unhandledErrors: 0 } : (JSON.parse(text) as VitestReport);
}
