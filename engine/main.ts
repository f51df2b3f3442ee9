import { openEngine } from "./engine.ts";
import { parseEngineEnv } from "./engine-env.ts";
import { logLine } from "./log-line.ts";

const CONFIG_FILE = "/config/gateway.yaml";
// The contract's grace between SIGTERM and SIGKILL is 30 s; a turn that takes longer gets its end before that.
const DRAIN_LIMIT_MS = 25_000;
const FAREWELL_MS = 2_000;

// Before anything else: process 1 of a container has no default reaction to these signals.
const stopped = Promise.withResolvers<string>();
for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => stopped.resolve(signal));

try {
  // oxlint-disable-next-line node/no-process-env -- the entry file of the engine reads its environment
  const env = parseEngineEnv(process.env);
  const engine = await openEngine({
    ...env,
    configFile: CONFIG_FILE,
    drainLimitMs: DRAIN_LIMIT_MS,
    farewellMs: FAREWELL_MS,
  });
  logLine("listening", { host: env.host, port: engine.port });
  logLine("stopping", { signal: await stopped.promise });
  await engine.close();
  logLine("stopped");
} catch (error) {
  process.stderr.write(`engine: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}
