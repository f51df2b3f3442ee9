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
  "gone: service, database, engines, containers, volumes, network, ports, files",
];

test(
  "the demo plays the whole story on processes, and leaves nothing",
  { timeout: WHOLE_RUN_MS },
  async () => {
    const run = await runDemo({ backend: "process" });
    expect(run, toTranscript(run)).toMatchObject({ code: 0, leftovers: [] });
    for (const part of STORY) expect(toTranscript(run)).toContain(part);
    // A temporary directory of a test has a longer name than others.
    const untidy = run.lines.filter((line) => line.length > 100 || line !== line.trimEnd());
    expect(untidy.filter((line) => !line.includes("with its data in"))).toEqual([]);
  },
);

test.skipIf(!isDockerAvailable())(
  "the demo plays the whole story in Docker, and leaves nothing",
  { timeout: WHOLE_RUN_MS },
  async () => {
    const run = await runDemo({ backend: "docker" });
    expect(run, toTranscript(run)).toMatchObject({ code: 0, leftovers: [] });
    for (const part of STORY) expect(toTranscript(run)).toContain(part);
  },
);

interface Interruption {
  /** After that many lines of output, and then so many milliseconds. */
  line: number;
  afterMs: number;
  backend: "docker" | "process";
  isTwice: boolean;
  signal: NodeJS.Signals;
}

/** While the database and the service start there is no output to go by. */
const STARTING = [0, 150, 400, 800, 1_300, 1_900].map((afterMs) => ({ line: 7, afterMs }));
/** From before anything is there until everything is gone again, some 75 lines in all. */
const TOLD = [1, 4, 11, 14, 17, 20, 25, 30, 33, 37, 43, 49, 56, 65].map((line) => ({ line, afterMs: 0 }));
const POINTS: readonly Interruption[] = [...STARTING, ...TOLD].map((place, index) => ({
  ...place,
  backend: index % 5 === 3 && isDockerAvailable() ? "docker" : "process",
  isTwice: index % 3 === 0,
  signal: index % 4 === 1 ? "SIGTERM" : "SIGINT",
}));

/** What it printed, for the message of a failure: a line that begins with "at" would be taken for one of a stack. */
function toTranscript({ lines }: DemoRun): string {
  return lines.map((line) => `| ${line}`).join("\n");
}

const TRIES = 3;

/** A demo that is to be disturbed. One that was over before, because this process was held up, is played again. */
async function runDisturbed(input: Parameters<typeof runDemo>[0]): Promise<DemoRun> {
  for (let tries = 1; ; tries += 1) {
    const run = await runDemo(input);
    const isDisturbed = run.lines.some((line) => /taking everything away again|failed: /.test(line));
    if (isDisturbed || run.code !== 0 || run.leftovers.length > 0 || tries === TRIES) return run;
  }
}

async function interrupt(point: Interruption): Promise<string[]> {
  const { line, afterMs, backend, isTwice, signal } = point;
  const run = await runDisturbed({
    backend,
    onLine: (child, count, text) => {
      if (count === line) setTimeout(() => child.kill(signal), afterMs);
      // The second one comes once the first is being dealt with.
      if (isTwice && text.includes("taking everything away again")) child.kill(signal);
    },
  });
  const expected = signal === "SIGINT" ? 130 : 143;
  const problems = [...run.leftovers];
  if (run.code !== expected) problems.push(`exit code ${run.code}, signal ${run.signal}`, ...run.lines);
  return problems.map((problem) => `${JSON.stringify(point)}: ${problem}`);
}

test("a signal at any of 20 points, once or twice, leaves nothing behind", { timeout: 900_000 }, async () => {
  const waiting = [...POINTS];
  const problems: string[] = [];
  const work = async () => {
    for (let point = waiting.shift(); point; point = waiting.shift())
      problems.push(...(await interrupt(point)));
  };
  await Promise.all([work(), work()]);
  expect(problems).toEqual([]);
});

test(
  "a service that is killed in the middle fails the demo, which leaves nothing",
  { timeout: TRIES * WHOLE_RUN_MS },
  async () => {
    const run = await runDisturbed({
      backend: "process",
      onLine: (child, _count, line) => {
        if (line.includes("engines.provision")) void killService(child);
      },
    });
    expect(run, toTranscript(run)).toMatchObject({ code: 1, leftovers: [] });
    expect(toTranscript(run)).toContain("the service died");
  },
);

/** The process whose parent is the demo and which runs the server. */
async function killService(demo: ChildProcess): Promise<void> {
  for (const { pid } of await listProcessesOf("/server/main.ts")) {
    const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
    if (stat.split(") ")[1]?.split(" ")[1] === String(demo.pid)) process.kill(pid, "SIGKILL");
  }
}
