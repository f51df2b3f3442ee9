import { join } from "node:path";
import { configDefaults, defineConfig } from "vitest/config";
import { SlowFirst } from "./test/tools/slow-first.ts";
import { WORKERS } from "./test/support/port-block.ts";

/** Heavy proofs: a minute or more each. `npm run test:long` runs them and nothing else. */
const LONG = "test/**/*.long.test.ts";

export default defineConfig(({ mode }) => ({
  test: {
    include: mode === "long" ? [LONG] : ["test/**/*.test.ts"],
    exclude: mode === "long" ? configDefaults.exclude : [...configDefaults.exclude, LONG],
    globalSetup: ["test/support/global-setup.ts"],
    pool: "forks",
    execArgv: ["--import", join(import.meta.dirname, "cli/quick-imports.ts")],
    // Most tests wait for processes, sockets and containers. More workers than the two cores keep the cores busy.
    maxWorkers: WORKERS,
    // Generous on purpose: a loaded machine must not fail a test. These limits only end a test that hangs.
    expect: { poll: { timeout: 30_000 } },
    testTimeout: 300_000,
    hookTimeout: 300_000,
    teardownTimeout: 60_000,
    sequence: { sequencer: SlowFirst },
    reporters: ["default", "./test/tools/folder-times.ts"],
  },
}));
