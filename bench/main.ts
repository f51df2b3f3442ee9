import { parseArgs } from "node:util";
import { exitIfAnswered } from "../cli/command-line.ts";
import { toTable } from "./measure-table.ts";
import { BENCHMARKS } from "./benchmarks.ts";
import type { Measure } from "./measure.ts";
import { describeMachine, writeResults } from "./results.ts";

/*
 * npm run bench                          all benchmarks
 * npm run bench relay-50 rpc-call        some of them
 * npm run bench relay-50 -- --cpu-prof=profiles    the service leaves a CPU profile
 *
 * The table shows a missed bound, which is not a failure. Exit codes: 0, 1 when a benchmark could not run, 2 for an
 * unknown name, 130 after a signal.
 */

exitIfAnswered({
  usage: `
npm run bench                                    all benchmarks
npm run bench relay-50 rpc-call                  some of them
npm run bench relay-50 -- --cpu-prof=profiles    the service leaves a CPU profile

Benchmarks: ${BENCHMARKS.map(({ name }) => name).join(", ")}`,
  takes: (argument) => !argument.startsWith("-") || argument.startsWith("--cpu-prof="),
});

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { "cpu-prof": { type: "string" } },
});
const unknown = positionals.filter((name) => !BENCHMARKS.some((benchmark) => benchmark.name === name));
if (unknown.length > 0) {
  const known = BENCHMARKS.map(({ name }) => name).join(", ");
  console.error(`unknown benchmark ${unknown.join(", ")}: choose from ${known}`);
  process.exit(2);
}
const chosen = BENCHMARKS.filter(({ name }) => positionals.length === 0 || positionals.includes(name));

const leaving = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.on(signal, () => leaving.abort(new Error(`stopped by ${signal}`)));
}

const measures: Measure[] = [];
let failures = 0;
for (const { name, run } of chosen) {
  if (leaving.signal.aborted) break;
  const log = (line: string) => console.error(`${name}: ${line}`);
  log("started");
  try {
    measures.push(...(await run({ signal: leaving.signal, log, cpuProfDir: values["cpu-prof"] })));
  } catch (error) {
    failures += 1;
    console.error(`${name}:`, leaving.signal.aborted ? leaving.signal.reason : error);
  }
}
if (measures.length > 0) {
  const { cpus, cpuModel, memoryGb, node } = describeMachine();
  console.log(`\n${toTable(measures)}\n\n${cpus} × ${cpuModel}, ${memoryGb} GB, Node ${node}`);
  console.log(await writeResults(measures));
}
process.exit(leaving.signal.aborted ? 130 : failures > 0 ? 1 : 0);
