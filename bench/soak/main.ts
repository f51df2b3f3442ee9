import { exitIfAnswered } from "../../cli/command-line.ts";
import { describeMachine } from "../results.ts";
import { soak } from "./soak.ts";
import { judge } from "./verdict.ts";

/*
 * npm run soak            five minutes
 * npm run soak -- 120     two minutes
 * npm run soak -- 120 7   two minutes with the choices of seed 7
 *
 * Exit codes: 0, 1 for a violation or if the soak could not run, 2 for a wrong argument, 130 after a signal.
 */

const DEFAULT_SECONDS = 300;
const LEAST_SECONDS = 20;

exitIfAnswered({
  usage: `
npm run soak            five minutes
npm run soak -- 120     two minutes
npm run soak -- 120 7   two minutes with the choices of seed 7`,
  takes: (argument) => /^\d{1,9}$/.test(argument),
});
const [seconds = DEFAULT_SECONDS, seed = Date.now() % 1_000_000] = process.argv.slice(2).map(Number);
if (seconds < LEAST_SECONDS) {
  console.error(`a soak of ${seconds} s is too short: take at least ${LEAST_SECONDS} s`);
  process.exit(2);
}

const leaving = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.on(signal, () => leaving.abort(new Error(`stopped by ${signal}`)));
}

const log = (line: string) => console.error(`soak: ${line}`);
log(`seed ${seed}`);
try {
  const bench = { signal: leaving.signal, log, cpuProfDir: undefined };
  const { rows, violations } = judge(await soak(bench, { seconds, random: toRandom(seed) }));
  const width = Math.max(...rows.map(([name]) => name.length));
  const { cpus, cpuModel, memoryGb, node } = describeMachine();
  console.log(`\n${rows.map(([name, value]) => `${name.padEnd(width)}  ${value}`).join("\n")}\n`);
  console.log(`${cpus} × ${cpuModel}, ${memoryGb} GB, Node ${node}, seed ${seed}`);
  console.log(
    violations.length === 0 ? "no violation" : violations.map((one) => `VIOLATION: ${one}`).join("\n"),
  );
  process.exit(violations.length === 0 ? 0 : 1);
} catch (error) {
  console.error("soak:", leaving.signal.aborted ? leaving.signal.reason : error);
  process.exit(leaving.signal.aborted ? 130 : 1);
}

/** mulberry32: a small generator with a seed, which Math.random lacks. */
function toRandom(start: number): () => number {
  let state = start;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
