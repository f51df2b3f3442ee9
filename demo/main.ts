import { randomBytes, randomUUID } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, realpathSync } from "node:fs";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";
import { exitIfAnswered } from "../cli/command-line.ts";
import { chooseRuntime } from "./choose-runtime.ts";
import { DemoService } from "./demo-service.ts";
import { findLeftovers } from "./find-leftovers.ts";
import { findPortRange, type PortRange } from "./port-range.ts";
import { Screen } from "./screen.ts";
import { toServiceEnvironment } from "./service-environment.ts";
import { playStory } from "./story.ts";
import { removeTraces, type Traces } from "./traces.ts";

/*
 * Plays the whole story against the real service. Removes everything that it made, no matter how the story ends:
 *
 *     the story, or a signal, or an error ─▶ removeTraces ─▶ findLeftovers ─▶ exit
 *
 * DEMO_BACKEND=docker|process chooses the runtime of the engines. DEMO_FAST=1 makes the engine answer without pauses.
 * Exit codes: 0 success, 1 failure, 128 + n after signal n.
 */

exitIfAnswered({
  usage: `
npm run demo    play the whole story against the real service, and remove everything again

  DEMO_BACKEND=docker|process    the runtime of the engines
  DEMO_FAST=1                    the engine answers without pauses`,
});

const TOKEN_DELAY_MS = 25;

const screen = new Screen({ out: process.stdout, colour: process.stdout.isTTY });
const leaving = new AbortController();
let exitCode = 0;

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.on(signal, () => {
    const isFirst = !leaving.signal.aborted;
    screen.announce(isFirst ? `${signal}: removing everything again` : "still removing everything");
    if (!isFirst) return;
    exitCode = 128 + constants.signals[signal];
    leave(new Error(`stopped by ${signal}`));
  });
}
for (const failure of ["uncaughtException", "unhandledRejection"] as const) {
  process.on(failure, (error: unknown) => fail(error));
}
// The reader of our output has left. The demo must still remove what it made.
process.stdout.on("error", fail);

/** Reports the first failure and starts the clean-up. Later failures follow from the clean-up, so they are ignored. */
function fail(error: unknown): void {
  if (leaving.signal.aborted) return;
  exitCode = 1;
  screen.announce(`failed: ${error instanceof Error ? error.message : String(error)}`);
  leave(new Error("failed", { cause: error }));
}

function leave(reason: Error): void {
  screen.mute();
  leaving.abort(reason);
}

async function play(traces: Traces, ports: PortRange): Promise<void> {
  const { signal } = leaving;
  const adminKey = randomBytes(32).toString("base64url");
  const runtime = await screen.step("The runtime of the engines", async () => {
    const { DEMO_BACKEND: wanted, DOCKER_HOST: dockerHost } = process.env;
    traces.choosing = chooseRuntime({ wanted, dockerHost: dockerHost || undefined, screen });
    return traces.choosing;
  });
  traces.runtime = runtime;
  signal.throwIfAborted();
  const { dataDir } = traces;
  const network = `enginehouse-demo-${randomUUID().slice(0, 8)}`;
  const settings = { adminKey, runtime, dataDir, network, ports };
  const title = "The service starts as with `npm start`, with its own Postgres";
  const { service, url } = await screen.step(title, async () => {
    const started = new DemoService(toServiceEnvironment(process.env, settings));
    traces.service = started;
    const address = await started.listening;
    screen.print(`listens at ${address}`);
    screen.print(`keeps its data in ${dataDir}`);
    return { service: started, url: address };
  });
  const tokenDelayMs = process.env["DEMO_FAST"] === "1" ? 0 : TOKEN_DELAY_MS;
  signal.throwIfAborted();
  const died = service.exited.then(() => {
    throw new Error("the service exited during the story");
  });
  await Promise.race([playStory({ screen, url, adminKey, tokenDelayMs, signal }), died]);
}

async function rejectWhenAborted(signal: AbortSignal): Promise<never> {
  if (!signal.aborted) await once(signal, "abort");
  throw signal.reason;
}

async function cleanUp(traces: Traces, ports: PortRange): Promise<void> {
  await removeTraces(traces);
  const leftovers = await findLeftovers(traces, ports);
  for (const leftover of leftovers) screen.announce(`left behind: ${leftover}`);
  if (leftovers.length > 0) throw new Error("the demo left something behind");
  screen.announce("removed: service, database, engines, containers, volumes, network, ports, files");
  if (traces.runtime?.kind === "docker")
    screen.announce(`kept: the image ${traces.runtime.image}, for the next demo`);
  const instanceId = traces.service?.instanceId;
  if (instanceId !== undefined) screen.announce(`(everything of instance ${instanceId})`);
}

async function main(): Promise<void> {
  screen.announce("Enginehouse demo: from an empty machine to a turn, and back");
  const ports = await findPortRange();
  const traces: Traces = { dataDir: realpathSync(mkdtempSync(join(tmpdir(), "enginehouse-demo-"))) };
  try {
    await Promise.race([play(traces, ports), rejectWhenAborted(leaving.signal)]);
  } catch (error) {
    fail(error);
    if (exitCode === 1)
      for (const line of traces.service?.problems ?? []) screen.announce(`service: ${line}`);
  }
  await screen.step("Nothing is left behind", () => cleanUp(traces, ports));
}

try {
  await main();
} catch (error) {
  exitCode ||= 1;
  screen.announce(`clean-up failed: ${error instanceof Error ? error.message : String(error)}`);
}
process.exit(exitCode);
