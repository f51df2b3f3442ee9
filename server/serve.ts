import { isatty } from "node:tty";
import { isAbandonedTypeLookup } from "../db/postgres-error.ts";
import { toErrorFields } from "./api/http/error-fields.ts";
import { openApp, type App } from "./app.ts";
import { ConfigError, parseConfig, type Config } from "./config/config.ts";
import { markSecretsShown } from "./boot/dev-secrets.ts";
import { toErrorMessage } from "./errors.ts";
import { openLog } from "./log.ts";
import { openStdoutLines, writeToStderr } from "./log-output.ts";
import { Secrets } from "./secrets/secrets.ts";
import { toWelcome } from "./boot/welcome.ts";

/*
 * The program of the service. Exit codes: 0 after a signal and a clean close; 1 when the start failed or the process had
 * to exit; 2 for an invalid configuration or argument.
 *
 * Signals: the first one drains and closes, a second one ends the drain, a third one exits at once. A signal during the
 * start aborts the start. SIGHUP comes when the terminal closes, SIGQUIT from Ctrl-\.
 */

const { config, warnings } = readConfig();
const output = openStdoutLines();
const secrets = new Secrets(Object.values(config.passthrough));
const log = openLog(config.log, { output, secrets });
for (const warning of warnings) log.warn({}, warning);

const leaving = new AbortController();
const hurry = new AbortController();
let exitCode = 0;
let isOpen = false;

const opening = openApp({
  config,
  log,
  output,
  signal: leaving.signal,
  onFatal: (why) => {
    exitCode = 1;
    void leave(why);
  },
});

/** A terminal and npm may both pass on the same signal. */
const SAME_SIGNAL_MS = 500;
/** A start that was aborted closes what it has opened within this time. */
const START_CLOSE_MS = 15_000;
let lastSignalAt = -SAME_SIGNAL_MS;

for (const signal of ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"] as const) {
  process.on(signal, () => {
    if (performance.now() - lastSignalAt < SAME_SIGNAL_MS) return;
    lastSignalAt = performance.now();
    if (leaving.signal.aborted) hurryUp(signal);
    else void leave(signal);
  });
}

// By default, SIGUSR1 opens Node's debugger to every program of this machine, and SIGUSR2 ends the process.
for (const signal of ["SIGUSR1", "SIGUSR2"] as const) {
  process.on(signal, () => log.info({ signal }, "signal ignored"));
}

process.on("unhandledRejection", (error) => {
  if (isAbandonedTypeLookup(error)) {
    log.warn({ error: toErrorMessage(error) }, "a new database connection broke");
    return;
  }
  leaveAfter(error, "an unhandled rejection");
});
process.on("uncaughtException", (error) => leaveAfter(error, "an uncaught exception"));
// Node would write a warning to stderr, and wait there if the reader of stderr does not read.
process.removeAllListeners("warning");
process.on("warning", ({ name, message }) => {
  log.info({ warning: name, detail: message }, "Node.js warning");
});

try {
  await announce(await opening);
} catch (error) {
  if (!leaving.signal.aborted) {
    logFailure({ error: toErrorMessage(error) }, "start failed");
    process.exit(error instanceof ConfigError ? 2 : 1);
  }
}

function readConfig(): { config: Config; warnings: string[] } {
  try {
    return parseConfig(process.env);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    process.stderr.write(`${error.message}\n`);
    process.exit(2);
  }
}

async function announce({ url, newAdminKey: adminKey, secretsPath }: App): Promise<void> {
  isOpen = true;
  log.info({ url, ...(secretsPath !== undefined && { secretsPath }) }, "listening");
  if (adminKey === undefined || secretsPath === undefined) return;
  output.write(toWelcome({ url, adminKey, secretsPath, showsKey: isatty(1) }));
  await markSecretsShown(config.dataDir);
}

/** If the log cannot be written, standard error may still tell why the process ends. */
function logFailure(fields: object, why: string): void {
  log.error(fields, why);
  if (output.error !== undefined) writeToStderr(secrets.hide(`${why}: ${JSON.stringify(fields)}\n`));
}

/** The effect of the failed work is unknown, so exit. The next start continues from what the database has. */
function leaveAfter(error: unknown, why: string): void {
  exitCode = 1;
  logFailure(toErrorFields(error), why);
  void leave(why);
}

/** Waits for a start that is under way, because what it has opened must be closed. */
async function leave(why: string): Promise<void> {
  if (leaving.signal.aborted) return;
  leaving.abort(new Error(`stopped by ${why}`));
  log.info({ why }, "stopping");
  const late = isOpen ? undefined : setTimeout(() => exitWithoutClosing(why), START_CLOSE_MS);
  const app = await opening.catch(() => undefined);
  clearTimeout(late);
  try {
    await app?.close(hurry.signal);
  } catch (error) {
    exitCode = 1;
    log.error({ error: toErrorMessage(error) }, "close failed");
  }
  process.exit(exitCode);
}

/** Ends the drain. Exits at once if a start hangs, or if this is the third signal. */
function hurryUp(signal: NodeJS.Signals): void {
  if (hurry.signal.aborted || !isOpen) exitWithoutClosing(signal);
  log.info({ why: signal }, "ending the drain");
  hurry.abort(new Error(`hurried by ${signal}`));
}

function exitWithoutClosing(why: string): never {
  log.warn({ why }, "exiting without closing");
  process.exit(1);
}
