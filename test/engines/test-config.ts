import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Config } from "../../server/config.ts";

/** Quick times, and a range of ports that no other worker of the run uses. */
export function testConfig(changes: Partial<Config> = {}): Config {
  const worker = Number(process.env["VITEST_POOL_ID"] ?? "1") % 20;
  const portMin = 12_000 + worker * 400;
  return {
    production: false,
    host: "127.0.0.1",
    port: 0,
    trustProxy: false,
    log: { level: "silent", pretty: false },
    dataDir: join(tmpdir(), "enginehouse-test"),
    databaseUrl: undefined,
    migrationDatabaseUrl: undefined,
    migrateOnBoot: true,
    databasePool: 4,
    masterKeys: undefined,
    adminKeyHash: undefined,
    backend: "auto",
    dockerHost: undefined,
    engineImage: "reference:1.0.0",
    engineImageAllow: [],
    allowUnpinnedImage: false,
    engineCommand: undefined,
    passthrough: {},
    engineNetwork: "engine_net",
    enginePort: 8000,
    limits: { memoryMb: 256, cpus: 1, pids: 128, readOnly: false, capAdd: [], user: null },
    portMin,
    portMax: portMin + 399,
    catalogPath: join(tmpdir(), "enginehouse-test", "catalog"),
    bootTimeoutMs: 5_000,
    healthIntervalMs: 30_000,
    healthTimeoutMs: 1_000,
    healthMaxFailures: 3,
    restartBackoffBaseMs: 50,
    restartBackoffMaxMs: 400,
    restartMaxAttempts: 3,
    stopGraceMs: 1_000,
    drainDelayMs: 0,
    drainMs: 2_000,
    heartbeatMs: 1_000,
    leaseMs: 600_000,
    turnRetentionMs: 10_800_000,
    turnMaxBytes: 67_108_864,
    eventMaxBytes: 1_048_576,
    turnIdleTimeoutMs: 600_000,
    ...changes,
  };
}
