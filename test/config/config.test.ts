import { join, resolve } from "node:path";
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ConfigError, parseConfig, type Config } from "../../server/config/config.ts";
import { SETTINGS, PLANNED_SETTINGS } from "../../server/config/settings.ts";
import { hashKey } from "../../server/keys/key-format.ts";
import { generateMasterKeys } from "../../server/keys/keyring.ts";

type Env = Record<string, string | undefined>;

const config = (env: Env): Config => parseConfig(env).config;

function problemsOf(env: Env): readonly string[] {
  try {
    parseConfig(env);
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
  return [];
}

const PRODUCTION: Env = {
  NODE_ENV: "production",
  ORCH_DATABASE_URL: "postgres://orch:hunter2@db/orch",
  ORCH_MASTER_KEYS: generateMasterKeys(),
  ORCH_ADMIN_KEY_HASH: hashKey("x"),
  ORCH_ENGINE_IMAGE: "engine:1.2.3",
  ORCH_ENGINE_BACKEND: "docker",
};

test("an empty environment is a complete configuration for development", () => {
  const { config, warnings } = parseConfig({});
  expect(warnings).toEqual([]);
  expect(config).toMatchObject({
    production: false,
    host: "127.0.0.1",
    port: 8080,
    trustProxy: false,
    log: { level: "info" },
    dataDir: resolve(".enginehouse"),
    databaseUrl: undefined,
    migrationDatabaseUrl: undefined,
    migrateOnBoot: true,
    databasePool: 10,
    masterKeys: undefined,
    adminKeyHash: undefined,
    runtimeChoice: "auto",
    dockerHost: undefined,
    engineImage: undefined,
    engineImageAllow: [],
    allowUnpinnedImage: false,
    engineCommand: undefined,
    passthrough: {},
    engineNetwork: "engine_net",
    internalSubnet: "10.213.0.0/16",
    enginePort: 8000,
    limits: { memoryMb: 1024, cpus: 1, pids: 512, capAdd: [], readOnly: false, user: null },
    engineOpenFiles: 16_384,
    engineTmpMb: 256,
    engineVolumeMb: undefined,
    portMin: 9001,
    portMax: 9999,
    catalogPath: join(resolve(".enginehouse"), "catalog"),
    bootTimeoutMs: 60_000,
    healthIntervalMs: 30_000,
    healthTimeoutMs: 10_000,
    healthMaxFailures: 3,
    restartBackoffBaseMs: 5_000,
    restartBackoffMaxMs: 300_000,
    restartMaxAttempts: 8,
    stopGraceMs: 30_000,
    drainDelayMs: 0,
    drainMs: 60_000,
    heartbeatMs: 5_000,
    leaseMs: 15_000,
    turnRetentionMs: 10_800_000,
    turnMaxBytes: 67_108_864,
    eventMaxBytes: 1_048_576,
    turnIdleTimeoutMs: 600_000,
    hitlTimeoutMs: 259_200_000,
  });
});

test("set variables take precedence over defaults, and seconds may have fractions", () => {
  expect(
    config({
      ORCH_PORT: "0",
      ORCH_HOST: "::",
      ORCH_TRUST_PROXY: "true",
      ORCH_LOG_LEVEL: "debug",
      ORCH_LOG_PRETTY: "false",
      ORCH_DATA_DIR: "/var/lib/enginehouse",
      ORCH_DATABASE_URL: "postgresql://a@b/c",
      ORCH_ENGINE_IMAGE: "localhost:5000/engine:2",
      ORCH_ENGINE_IMAGE_ALLOW: "engine:1, engine:2,",
      ORCH_ENGINE_COMMAND: "node 'my engine.ts'",
      ORCH_ENGINE_CPUS: "0.5",
      ORCH_ENGINE_CAP_ADD: "CHOWN,NET_RAW",
      ORCH_ENGINE_USER: "1000:1000",
      ORCH_ENGINE_READ_ONLY: "true",
      ORCH_CATALOG_MOUNT_PATH: "/srv/catalog",
      ORCH_HEARTBEAT_S: "0.1",
      ORCH_LEASE_S: ".25",
      ORCH_BOOT_TIMEOUT_S: " 2.5 ",
    }),
  ).toMatchObject({
    port: 0,
    host: "::",
    trustProxy: true,
    log: { level: "debug", pretty: false },
    dataDir: "/var/lib/enginehouse",
    databaseUrl: "postgresql://a@b/c",
    migrationDatabaseUrl: "postgresql://a@b/c",
    engineImage: "localhost:5000/engine:2",
    engineImageAllow: ["engine:1", "engine:2"],
    engineCommand: ["node", "my engine.ts"],
    limits: { cpus: 0.5, capAdd: ["CHOWN", "NET_RAW"], user: "1000:1000", readOnly: true },
    catalogPath: "/srv/catalog",
    heartbeatMs: 100,
    leaseMs: 250,
    bootTimeoutMs: 2_500,
  });
});

test("an empty variable counts as not set", () => {
  const empty = Object.fromEntries(Object.values(SETTINGS).map(({ name }) => [name, ""]));
  expect(config({ ...empty, DOCKER_HOST: "" })).toEqual(config({}));
});

test("all problems are reported at once, one line each, with name, value and the values it takes", () => {
  const problems = problemsOf({
    ORCH_PORT: "70000",
    ORCH_LOG_LEVEL: "loud",
    ORCH_TRUST_PROXY: "yes",
    ORCH_LEASE_S: "1e3",
    ORCH_ENGINE_COMMAND: "run | tee",
    ORCH_HOST: "a\nb",
  });
  expect(problems).toHaveLength(6);
  expect(problems.join("\n").split("\n")).toHaveLength(6);
  expect(problems).toContain('ORCH_PORT is "70000"; it takes a whole number from 0 to 65535');
  expect(problems.find((line) => line.startsWith("ORCH_LOG_LEVEL"))).toContain(
    '"loud"; it takes one of debug, info',
  );
  expect(problems.find((line) => line.startsWith("ORCH_ENGINE_COMMAND"))).toContain("operator |");
  expect(problems.find((line) => line.startsWith("ORCH_HOST"))).toContain(String.raw`"a\nb"`);
});

test.each<[string, Env, string]>([
  [
    "a port range whose end is before its start",
    { ORCH_PORT_MIN: "9999", ORCH_PORT_MAX: "9001" },
    "ORCH_PORT_MIN",
  ],
  ["a lease of two heartbeats", { ORCH_HEARTBEAT_S: "5", ORCH_LEASE_S: "10" }, "ORCH_LEASE_S"],
  ["an image without a tag", { ORCH_ENGINE_IMAGE: "engine" }, "ORCH_ENGINE_IMAGE"],
  ["an image tagged latest", { ORCH_ENGINE_IMAGE: "reg:5000/engine:latest" }, "ORCH_ENGINE_IMAGE"],
  ["an unpinned allowed image", { ORCH_ENGINE_IMAGE_ALLOW: "a:1,b" }, "ORCH_ENGINE_IMAGE_ALLOW"],
  ["passing on a setting", { ORCH_ENGINE_ENV_PASSTHROUGH: "A,ORCH_MASTER_KEYS" }, "ORCH_ENGINE_ENV"],
  ["passing on a setting in lower case", { ORCH_ENGINE_ENV_PASSTHROUGH: "orch_x" }, "ORCH_ENGINE_ENV"],
  ["passing on ENGINE_KEY_HASH", { ORCH_ENGINE_ENV_PASSTHROUGH: "ENGINE_KEY_HASH" }, "ORCH_ENGINE_ENV"],
  ["passing on SQLITE_DB_PATH", { ORCH_ENGINE_ENV_PASSTHROUGH: "SQLITE_DB_PATH" }, "ORCH_ENGINE_ENV"],
  ["passing on CATALOG_DIR", { ORCH_ENGINE_ENV_PASSTHROUGH: "CATALOG_DIR" }, "ORCH_ENGINE_ENV"],
  ["a short operator key", { ORCH_ADMIN_KEY: "x".repeat(31) }, "ORCH_ADMIN_KEY"],
  ["a bad master key", { ORCH_MASTER_KEYS: `${generateMasterKeys()},b:AAAA` }, "entry 2"],
  ["a database that is not Postgres", { ORCH_DATABASE_URL: "mysql://a/b" }, "ORCH_DATABASE_URL"],
  ["a Docker host over ssh", { DOCKER_HOST: "ssh://a" }, 'DOCKER_HOST is "ssh://a"'],
])("%s is refused", (_what, env, expected) => {
  const problems = problemsOf(env);
  expect(problems).toHaveLength(1);
  expect(problems[0]).toContain(expected);
});

test("unpinned images are accepted if they are allowed", () => {
  const env = {
    ORCH_ALLOW_UNPINNED_IMAGE: "true",
    ORCH_ENGINE_IMAGE: "engine",
    ORCH_ENGINE_IMAGE_ALLOW: "b",
  };
  expect(config(env)).toMatchObject({ engineImage: "engine", engineImageAllow: ["b"] });
});

test("pass-through variables have their values, and unset ones are absent", () => {
  const env = { ORCH_ENGINE_ENV_PASSTHROUGH: "A_KEY, B_KEY,C_KEY", A_KEY: "a=b c", C_KEY: "" };
  expect(config(env).passthrough).toEqual({ A_KEY: "a=b c", C_KEY: "" });
});

test("DOCKER_HOST is used if ORCH_DOCKER_HOST is not set", () => {
  const DOCKER_HOST = "tcp://127.0.0.1:2375";
  expect(config({ DOCKER_HOST }).dockerHost).toBe(DOCKER_HOST);
  expect(config({ DOCKER_HOST, ORCH_DOCKER_HOST: "unix:///run/x.sock" }).dockerHost).toBe(
    "unix:///run/x.sock",
  );
});

describe("the first operator key", () => {
  const key = "any opaque string".replaceAll(" ", "-").repeat(2);

  test("is kept only as its hash, whether the key, the hash or both are set", () => {
    const hash = hashKey(key);
    for (const env of [
      { ORCH_ADMIN_KEY: key },
      { ORCH_ADMIN_KEY_HASH: hash.toUpperCase() },
      { ORCH_ADMIN_KEY: key, ORCH_ADMIN_KEY_HASH: hash },
    ]) {
      const parsed = config(env);
      expect(parsed.adminKeyHash).toBe(hash);
      expect(JSON.stringify(parsed)).not.toContain(key);
    }
  });

  test("is refused if the key does not match the hash", () => {
    const problems = problemsOf({ ORCH_ADMIN_KEY: key, ORCH_ADMIN_KEY_HASH: hashKey("another") });
    expect(problems).toHaveLength(1);
    expect(problems[0]).toContain("ORCH_ADMIN_KEY_HASH");
  });
});

describe("production", () => {
  test("accepts a complete configuration, and has safer defaults", () => {
    expect(config(PRODUCTION)).toMatchObject({
      production: true,
      migrateOnBoot: false,
      drainDelayMs: 5_000,
      runtimeChoice: "docker",
    });
    const chosen = { ...PRODUCTION, ORCH_MIGRATE_ON_BOOT: "true", ORCH_DRAIN_DELAY_S: "0" };
    expect(config(chosen)).toMatchObject({ migrateOnBoot: true, drainDelayMs: 0 });
  });

  test("names each required setting that is missing", () => {
    const names = problemsOf({ NODE_ENV: "production" }).map((line) => line.split(" ")[0]);
    expect(names.toSorted((a = "", b = "") => a.localeCompare(b))).toEqual([
      "ORCH_ADMIN_KEY_HASH",
      "ORCH_DATABASE_URL",
      "ORCH_ENGINE_BACKEND",
      "ORCH_ENGINE_IMAGE",
      "ORCH_MASTER_KEYS",
    ]);
  });

  test("accepts ORCH_ADMIN_KEY instead of its hash", () => {
    const env = { ...PRODUCTION, ORCH_ADMIN_KEY_HASH: undefined, ORCH_ADMIN_KEY: "k".repeat(32) };
    expect(config(env).adminKeyHash).toBe(hashKey("k".repeat(32)));
  });

  test.each(["process", "auto"])(
    "refuses the runtime %s, which may run engines without isolation",
    (backend) => {
      expect(problemsOf({ ...PRODUCTION, ORCH_ENGINE_BACKEND: backend })).toEqual([
        expect.stringContaining(`ORCH_ENGINE_BACKEND is "${backend}"`),
      ]);
    },
  );
});

describe("warnings", () => {
  test("name a misspelt variable and the nearest setting, never the value", () => {
    expect(parseConfig({ ORCH_PROT: "8080", ORCH_MASTER_KEY: "secret" }).warnings).toEqual([
      "ORCH_MASTER_KEY is not a setting of this service; did you mean ORCH_MASTER_KEYS?",
      "ORCH_PROT is not a setting of this service; did you mean ORCH_PORT?",
    ]);
    expect(parseConfig({ ORCH_SOMETHING_ELSE_ALTOGETHER: "1" }).warnings).toEqual([
      "ORCH_SOMETHING_ELSE_ALTOGETHER is not a setting of this service",
    ]);
  });

  test("name the settings that have no effect yet", () => {
    const env = Object.fromEntries(PLANNED_SETTINGS.map((name) => [name, "1"]));
    expect(parseConfig(env).warnings).toEqual(
      PLANNED_SETTINGS.map((name) => `${name} has no effect yet`).toSorted(),
    );
  });
});

test("no problem or warning contains a secret, whatever its value is", () => {
  const secrets = Object.values(SETTINGS).filter(({ secret }) => secret);
  expect(secrets.map(({ name }) => name).toSorted()).toEqual([
    "ORCH_ADMIN_KEY",
    "ORCH_ADMIN_KEY_HASH",
    "ORCH_DATABASE_URL",
    "ORCH_MASTER_KEYS",
    "ORCH_MIGRATION_DATABASE_URL",
  ]);
  // The marks ensure that a random secret is never a word of a message.
  const marked = fc.string({ minLength: 1 }).map((text) => `~${text}~`);
  const hidden = fc.oneof(
    marked,
    marked.map((text) => `id:${text}`),
    marked.map((text) => `postgres://user:${text}@host/db ${text}`),
  );
  fc.assert(
    fc.property(
      fc.constantFrom("production", "development"),
      fc.array(hidden, { minLength: 6, maxLength: 6 }),
      (mode, values) => {
        const env: Env = { NODE_ENV: mode, ORCH_PORT: "x", ORCH_PROT: values[5] };
        for (const [index, { name }] of secrets.entries()) env[name] = values[index];
        const told = problemsOf(env).join("\n");
        expect(told).toContain("ORCH_PORT");
        for (const value of values) expect(told).not.toContain(value);
      },
    ),
  );
});

test("every environment is either accepted or refused with problems", () => {
  const names = fc.constantFrom(
    ...Object.values(SETTINGS).map(({ name }) => name),
    "NODE_ENV",
    "DOCKER_HOST",
  );
  fc.assert(
    fc.property(
      fc.dictionary(names, fc.oneof(fc.string(), fc.constantFrom("production", "1", "0.5", "true"))),
      (env) => {
        expect(Array.isArray(problemsOf(env))).toBe(true);
      },
    ),
  );
});

test("every setting has a name, the values it takes, and a default or its meaning when unset", () => {
  for (const setting of Object.values(SETTINGS)) {
    expect(setting.name).toMatch(/^ORCH_[A-Z_]+$/);
    expect(setting.takes.length).toBeGreaterThan(0);
    expect(setting.default ?? setting.unset).toBeDefined();
  }
  const names = Object.values(SETTINGS).map(({ name }) => name);
  expect(new Set(names).size).toBe(names.length);
});
