import { randomBytes, randomUUID } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, realpathSync } from "node:fs";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";
import { chooseBackend } from "./choose-backend.ts";
import { DemoService } from "./demo-service.ts";
import { findLeftovers } from "./find-leftovers.ts";
import { findPortRange, type PortRange } from "./port-range.ts";
import { Screen } from "./screen.ts";
import { toServiceEnvironment } from "./service-environment.ts";
import { playStory } from "./story.ts";
import { removeTraces, type Traces } from "./traces.ts";

/*
 * Plays the whole story against the real service, and takes everything away again, however it ends:
 *
 *     the story, or a signal, or an error ─▶ removeTraces ─▶ findLeftovers ─▶ exit
 *
 * DEMO_BACKEND=docker|process forces where engines run; DEMO_FAST=1 lets the engine speak without pauses.
 * Exit codes: 0 all went well, 1 something did not, 128 + n after signal n.
 */

const TOKEN_DELAY_MS = 25;

const screen = new Screen({ out: process.stdout, colour: process.stdout.isTTY });
const leaving = new AbortController();
let exitCode = 0;

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.on(signal, () => {
    const isFirst = !leaving.signal.aborted;
    screen.announce(isFirst ? `${signal}: taking everything away again` : "still taking everything away");
    if (!isFirst) return;
    exitCode = 128 + constants.signals[signal];
    leave(new Error(`stopped by ${signal}`));
  });
}
for (const failure of ["uncaughtException", "unhandledRejection"] as const) {
  process.on(failure, (error: unknown) => fail(error));
}
// Whoever read our output has gone: what we made has to go all the same.
process.stdout.on("error", fail);

/** What goes wrong after that is the clean-up's own matter, or comes of it. */
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
  const backend = await screen.step("Where engines run", async () => {
    const { DEMO_BACKEND: wanted, DOCKER_HOST: dockerHost } = process.env;
    traces.choosing = chooseBackend({ wanted, dockerHost: dockerHost || undefined, screen });
    return traces.choosing;
  });
  traces.backend = backend;
  signal.throwIfAborted();
  const { dataDir } = traces;
  const network = `enginehouse-demo-${randomUUID().slice(0, 8)}`;
  const settings = { adminKey, backend, dataDir, network, ports };
  const title = "The service starts, as `npm start` does, with a Postgres of its own";
  const { service, url } = await screen.step(title, async () => {
    const started = new DemoService(toServiceEnvironment(process.env, settings));
    traces.service = started;
    const address = await started.listening;
    screen.say(`serves at ${address}`);
    screen.say(`with its data in ${dataDir}`);
    return { service: started, url: address };
  });
  const tokenDelayMs = process.env["DEMO_FAST"] === "1" ? 0 : TOKEN_DELAY_MS;
  signal.throwIfAborted();
  const died = service.exited.then(() => {
    throw new Error("the service died");
  });
  await Promise.race([playStory({ screen, url, adminKey, tokenDelayMs, signal }), died]);
}

async function rejectWhenAborted(signal: AbortSignal): Promise<never> {
  if (!signal.aborted) await once(signal, "abort");
  throw signal.reason;
}

async function takeAway(traces: Traces, ports: PortRange): Promise<void> {
  await removeTraces(traces);
  const leftovers = await findLeftovers(traces, ports);
  for (const leftover of leftovers) screen.announce(`left behind: ${leftover}`);
  if (leftovers.length > 0) throw new Error("the demo left something behind");
  screen.announce("gone: service, database, engines, containers, volumes, network, ports, files");
  const instanceId = traces.service?.instanceId;
  if (instanceId !== undefined) screen.announce(`(all that was of instance ${instanceId})`);
}

async function main(): Promise<void> {
  screen.announce("Enginehouse, from nothing to a turn and back to nothing");
  const ports = await findPortRange();
  const traces: Traces = { dataDir: realpathSync(mkdtempSync(join(tmpdir(), "enginehouse-demo-"))) };
  try {
    await Promise.race([play(traces, ports), rejectWhenAborted(leaving.signal)]);
  } catch (error) {
    fail(error);
    if (exitCode === 1)
      for (const line of traces.service?.complaints ?? []) screen.announce(`service: ${line}`);
  }
  await screen.step("Nothing is left behind", () => takeAway(traces, ports));
}

try {
  await main();
} catch (error) {
  exitCode ||= 1;
  screen.announce(`clean-up failed: ${error instanceof Error ? error.message : String(error)}`);
}
process.exit(exitCode);
