import type { ChildProcess } from "node:child_process";
import { readFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { listProcessesOf } from "../../demo/processes-of.ts";
import { isDockerAvailable } from "../support/docker-available.ts";
import { type DemoRun, runDemo } from "./run-demo.ts";

const WHOLE_RUN_MS = 120_000;

const STORY = [
  "products.register",
  "engines.provision",
  "rpc.setConfig",
  "client.execute",
  "none lost, none twice",
  "turns.events",
  "my favourite colour is teal",
  "old key, after:   401",
  "new key:          200",
  "engine_key.rotated",
  "engines.destroy",
  "removed: service, database, engines, containers, volumes, network, ports, files",
];

test(
  "the demo plays the whole story with processes and leaves nothing behind",
  { timeout: WHOLE_RUN_MS },
  async () => {
    const run = await runDemo({ runtime: "process" });
    expect(run, toTranscript(run)).toMatchObject({ code: 0, leftovers: [] });
    for (const part of STORY) expect(toTranscript(run)).toContain(part);
    // The line with the data directory may be longer: the temporary directory of a test has a long name.
    const untidy = run.lines.filter((line) => line.length > 100 || line !== line.trimEnd());
    expect(untidy.filter((line) => !line.includes("keeps its data in"))).toEqual([]);
  },
);

test.skipIf(!isDockerAvailable())(
  "the demo plays the whole story in Docker and leaves nothing behind",
  { timeout: WHOLE_RUN_MS },
  async () => {
    const run = await runDemo({ runtime: "docker" });
    expect(run, toTranscript(run)).toMatchObject({ code: 0, leftovers: [] });
    for (const part of STORY) expect(toTranscript(run)).toContain(part);
  },
);

interface Interruption {
  /** The signal is sent `afterMs` milliseconds after this line of the output. */
  line: number;
  afterMs: number;
  runtime: "docker" | "process";
  isTwice: boolean;
  signal: NodeJS.Signals;
}

/** While the database and the service start there is no output, so these points differ in time. */
const STARTING = [0, 150, 400, 800, 1_300, 1_900].map((afterMs) => ({ line: 7, afterMs }));
/** From the first line until after the clean-up, about 75 lines in all. */
const AT_LINES = [1, 4, 11, 14, 17, 20, 25, 30, 33, 37, 43, 49, 56, 65].map((line) => ({ line, afterMs: 0 }));
const POINTS: readonly Interruption[] = [...STARTING, ...AT_LINES].map((point, index) => ({
  ...point,
  runtime: index % 5 === 3 && isDockerAvailable() ? "docker" : "process",
  isTwice: index % 3 === 0,
  signal: index % 4 === 1 ? "SIGTERM" : "SIGINT",
}));

/** The output, for the message of a failure. The prefix keeps vitest from reading a line with "at" as a stack frame. */
function toTranscript({ lines }: DemoRun): string {
  return lines.map((line) => `| ${line}`).join("\n");
}

const MAX_RUNS = 3;

/** Runs a demo that a test disturbs. If the demo ended before the disturbance reached it, runs it again. */
async function runDisturbed(input: Parameters<typeof runDemo>[0]): Promise<DemoRun> {
  for (let runs = 1; ; runs += 1) {
    const run = await runDemo(input);
    const isDisturbed = run.lines.some((line) => /removing everything again|failed: /.test(line));
    if (isDisturbed || run.code !== 0 || run.leftovers.length > 0 || runs === MAX_RUNS) return run;
  }
}

async function interrupt(point: Interruption): Promise<string[]> {
  const { line, afterMs, runtime, isTwice, signal } = point;
  const run = await runDisturbed({
    runtime,
    onLine: (child, count, text) => {
      if (count === line) setTimeout(() => child.kill(signal), afterMs);
      // The second signal comes while the demo handles the first one.
      if (isTwice && text.includes("removing everything again")) child.kill(signal);
    },
  });
  const expected = signal === "SIGINT" ? 130 : 143;
  const problems = [...run.leftovers];
  if (run.code !== expected) problems.push(`exit code ${run.code}, signal ${run.signal}`, ...run.lines);
  return problems.map((problem) => `${JSON.stringify(point)}: ${problem}`);
}

test(
  "a demo that gets a signal at any of 20 points, once or twice, leaves nothing behind",
  { timeout: 900_000 },
  async () => {
    const waiting = [...POINTS];
    const problems: string[] = [];
    const work = async () => {
      for (let point = waiting.shift(); point; point = waiting.shift())
        problems.push(...(await interrupt(point)));
    };
    await Promise.all([work(), work()]);
    expect(problems).toEqual([]);
  },
);

test(
  "a demo whose service is killed in the middle fails and leaves nothing behind",
  { timeout: MAX_RUNS * WHOLE_RUN_MS },
  async () => {
    const run = await runDisturbed({
      runtime: "process",
      onLine: (child, _count, line) => {
        if (line.includes("engines.provision")) void killService(child);
      },
    });
    expect(run, toTranscript(run)).toMatchObject({ code: 1, leftovers: [] });
    expect(toTranscript(run)).toContain("the service exited during the story");
  },
);

/** Kills the process that runs the server and whose parent is the demo. */
async function killService(demo: ChildProcess): Promise<void> {
  for (const { pid } of await listProcessesOf("/server/main.ts")) {
    const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
    if (stat.split(") ")[1]?.split(" ")[1] === String(demo.pid)) process.kill(pid, "SIGKILL");
  }
}
