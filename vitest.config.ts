import { defineConfig } from "vitest/config";
import { WORKERS } from "./test/support/port-block.ts";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/support/global-setup.ts"],
    pool: "forks",
    // Most tests wait for processes, sockets and containers: a few more workers than the two cores keep them busy.
    maxWorkers: WORKERS,
    // What is waited for comes when it comes: a loaded machine must not make a test fail. These end what hangs.
    expect: { poll: { timeout: 30_000 } },
    testTimeout: 300_000,
    hookTimeout: 300_000,
    teardownTimeout: 60_000,
    reporters: ["default"],
  },
});
