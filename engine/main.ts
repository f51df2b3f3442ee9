import { openEngine } from "./engine.ts";
import { parseEngineEnv } from "./engine-env.ts";
import { logLine } from "./log-line.ts";

const CONFIG_FILE = "/config/gateway.yaml";
// The contract gives 30 s between SIGTERM and SIGKILL. Turns that take longer are aborted before that.
const DRAIN_LIMIT_MS = 25_000;
const ABORT_LIMIT_MS = 2_000;

// Must come first: process 1 of a container has no default handlers for these signals.
const stopped = Promise.withResolvers<string>();
for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => stopped.resolve(signal));

try {
  // oxlint-disable-next-line node/no-process-env -- the entry file of the engine reads its environment
  const env = parseEngineEnv(process.env);
  const engine = await openEngine({
    ...env,
    configFile: CONFIG_FILE,
    drainLimitMs: DRAIN_LIMIT_MS,
    abortLimitMs: ABORT_LIMIT_MS,
  });
  logLine("listening", { host: env.host, port: engine.port });
  logLine("stopping", { signal: await stopped.promise });
  await engine.close();
  logLine("stopped");
} catch (error) {
  process.stderr.write(`engine: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}
