import { isAbandonedTypeLookup } from "../db/postgres-error.ts";
import { openApp } from "./app.ts";
import { ConfigError, parseConfig, type Config } from "./config/config.ts";
import { markSecretsShown } from "./boot/dev-secrets.ts";
import { toErrorMessage } from "./errors.ts";
import { openLog } from "./log.ts";
import { toWelcome } from "./boot/welcome.ts";

/*
 * Exit codes: 0 after a signal and a clean close, 1 when the start failed or the process had to go,
 * 2 for a configuration that cannot be used.
 */

function readConfig(): { config: Config; warnings: string[] } {
  try {
    return parseConfig(process.env);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    process.stderr.write(`${error.message}\n`);
    process.exit(2);
  }
}

const { config, warnings } = readConfig();
const log = openLog(config.log);
for (const warning of warnings) log.warn({}, warning);

const leaving = new AbortController();
const hurry = new AbortController();
let exitCode = 0;

const opening = openApp({
  config,
  log,
  signal: leaving.signal,
  onFatal: (why) => {
    exitCode = 1;
    void leave(why);
  },
});

/** A start that is under way is given up or finished first: what it opened has to be closed. */
async function leave(why: string): Promise<void> {
  if (leaving.signal.aborted) return;
  leaving.abort(new Error(`stopped by ${why}`));
  log.info({ why }, "stopping");
  const app = await opening.catch(() => undefined);
  try {
    await app?.close(hurry.signal);
  } catch (error) {
    exitCode = 1;
    log.error({ error: toErrorMessage(error) }, "close failed");
  }
  process.exit(exitCode);
}

/** A terminal and npm may both send the same one. */
const SAME_SIGNAL_MS = 500;
let lastSignalAt = -SAME_SIGNAL_MS;
let isOpen = false;

for (const signal of ["SIGTERM", "SIGINT"] as const) {
  process.on(signal, () => {
    if (performance.now() - lastSignalAt < SAME_SIGNAL_MS) return;
    lastSignalAt = performance.now();
    if (!leaving.signal.aborted) void leave(signal);
    else hurryUp(signal);
  });
}

/** The drain ends; and what a start or a close hangs in need not end. */
function hurryUp(signal: NodeJS.Signals): void {
  if (hurry.signal.aborted || !isOpen) {
    log.warn({ why: signal }, "going without a close");
    process.exit(1);
  }
  log.info({ why: signal }, "stopping at once");
  hurry.abort(new Error(`hurried by ${signal}`));
}

process.on("unhandledRejection", (error) => {
  if (isAbandonedTypeLookup(error)) {
    log.warn({ error: toErrorMessage(error) }, "a database connection broke while it was made");
    return;
  }
  // Nobody waits for it any more, so its effect is not known: the next process starts from what is on record.
  exitCode = 1;
  log.error({ error: toErrorMessage(error) }, "unhandled rejection");
  void leave("an unhandled rejection");
});

try {
  const app = await opening;
  isOpen = true;
  const { url, newAdminKey: adminKey, secretsPath } = app;
  log.info({ url, ...(secretsPath !== undefined && { secretsPath }) }, "listening");
  if (adminKey !== undefined && secretsPath !== undefined) {
    process.stdout.write(toWelcome({ url, adminKey, secretsPath, showsKey: process.stdout.isTTY }));
    await markSecretsShown(config.dataDir);
  }
} catch (error) {
  if (!leaving.signal.aborted) {
    log.error({ error: toErrorMessage(error) }, "start failed");
    process.exit(1);
  }
}
