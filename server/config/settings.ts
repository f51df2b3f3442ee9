import {
  auditRetentionSeconds,
  capabilities,
  command,
  databaseUrl,
  decimal,
  dockerHost,
  flag,
  hostName,
  image,
  imageList,
  internalSubnet,
  keyHash,
  listenPort,
  masterKeys,
  networkName,
  oneOf,
  opaqueKey,
  path,
  port,
  retentionSeconds,
  roleName,
  seconds,
  userName,
  variableNames,
  wholeNumber,
  type ValueKind,
} from "./value-kinds.ts";
import { LOG_LEVELS } from "../log.ts";

export interface Setting<T> extends ValueKind<T> {
  name: string;
  /** The default, written as in the variable. undefined: there is none, and `unset` says what happens. */
  default: string | undefined;
  /** The default if NODE_ENV is production. */
  productionDefault?: string;
  /** What the service uses if the variable is not set. For people. */
  unset?: string;
  requiredInProduction: boolean;
  /** Problems and warnings never show the value. */
  secret: boolean;
}

type Traits = Partial<Pick<Setting<unknown>, "productionDefault" | "requiredInProduction" | "secret">>;
const PLAIN = { requiredInProduction: false, secret: false };

function withDefault<T>(name: string, text: string, kind: ValueKind<T> & Traits): Setting<T> {
  return { ...PLAIN, ...kind, name, default: text };
}

function optional<T>(name: string, unset: string, kind: ValueKind<T> & Traits): Setting<T | undefined> {
  // Safe, because a schema of T is also a schema of T or undefined. Only zod's types are invariant.
  const { schema, ...rest } = kind as ValueKind<T | undefined> & Traits;
  return { ...PLAIN, ...rest, schema, name, default: undefined, unset };
}

const GENERATED = "generated in the data directory";

/** Every variable, in the order of the README. Durations are seconds in the variable, and milliseconds as a value. */
export const SETTINGS = {
  host: withDefault("ORCH_HOST", "127.0.0.1", hostName),
  port: withDefault("ORCH_PORT", "8080", listenPort),
  trustProxy: withDefault("ORCH_TRUST_PROXY", "false", flag),
  logLevel: withDefault("ORCH_LOG_LEVEL", "info", oneOf(LOG_LEVELS)),
  logPretty: optional("ORCH_LOG_PRETTY", "true on a terminal", flag),
  dataDir: withDefault("ORCH_DATA_DIR", ".enginehouse", path),

  databaseUrl: optional("ORCH_DATABASE_URL", "an embedded Postgres in the data directory", {
    ...databaseUrl,
    requiredInProduction: true,
    secret: true,
  }),
  migrationDatabaseUrl: optional("ORCH_MIGRATION_DATABASE_URL", "ORCH_DATABASE_URL", {
    ...databaseUrl,
    secret: true,
  }),
  databaseServiceRole: optional("ORCH_DB_SERVICE_ROLE", "the role of ORCH_DATABASE_URL", roleName),
  migrateOnBoot: withDefault("ORCH_MIGRATE_ON_BOOT", "true", { ...flag, productionDefault: "false" }),
  databasePool: withDefault("ORCH_DB_POOL", "10", wholeNumber(2, 100)),

  masterKeys: optional("ORCH_MASTER_KEYS", GENERATED, {
    ...masterKeys,
    requiredInProduction: true,
    secret: true,
  }),
  adminKeyHash: optional("ORCH_ADMIN_KEY_HASH", `the hash of ORCH_ADMIN_KEY, else ${GENERATED}`, {
    ...keyHash,
    secret: true,
  }),
  adminKey: optional("ORCH_ADMIN_KEY", GENERATED, { ...opaqueKey, secret: true }),

  runtimeChoice: withDefault("ORCH_ENGINE_BACKEND", "auto", {
    ...oneOf(["auto", "docker", "process"]),
    requiredInProduction: true,
  }),
  dockerHost: optional("ORCH_DOCKER_HOST", "DOCKER_HOST, else the default socket", dockerHost),
  engineImage: optional("ORCH_ENGINE_IMAGE", "in Docker, an image of the reference engine, built at start", {
    ...image,
    requiredInProduction: true,
  }),
  engineImageAllow: withDefault("ORCH_ENGINE_IMAGE_ALLOW", "", imageList),
  allowUnpinnedImage: withDefault("ORCH_ALLOW_UNPINNED_IMAGE", "false", flag),
  engineCommand: optional("ORCH_ENGINE_COMMAND", "the reference engine", command),
  passthroughNames: withDefault("ORCH_ENGINE_ENV_PASSTHROUGH", "", variableNames),
  engineNetwork: withDefault("ORCH_ENGINE_NETWORK", "engine_net", networkName),
  internalSubnet: withDefault("ORCH_ENGINE_INTERNAL_SUBNET", "10.213.0.0/16", internalSubnet),
  enginePort: withDefault("ORCH_ENGINE_PORT", "8000", port),
  memoryMb: withDefault("ORCH_ENGINE_MEMORY_MB", "1024", wholeNumber(16, 16_777_216)),
  cpus: withDefault("ORCH_ENGINE_CPUS", "1", decimal(0.01, 1_024)),
  pids: withDefault("ORCH_ENGINE_PIDS", "512", wholeNumber(8, 4_194_304)),
  engineOpenFiles: withDefault("ORCH_ENGINE_OPEN_FILES", "16384", wholeNumber(256, 1_048_576)),
  engineTmpMb: withDefault("ORCH_ENGINE_TMP_MB", "256", wholeNumber(1, 1_048_576)),
  engineVolumeMb: optional("ORCH_ENGINE_VOLUME_MB", "no limit", wholeNumber(1, 1_073_741_824)),
  capAdd: withDefault("ORCH_ENGINE_CAP_ADD", "", capabilities),
  readOnly: withDefault("ORCH_ENGINE_READ_ONLY", "false", flag),
  user: optional("ORCH_ENGINE_USER", "the image's user; new engines refuse root", userName),
  portMin: withDefault("ORCH_PORT_MIN", "9001", port),
  portMax: withDefault("ORCH_PORT_MAX", "9999", port),
  catalogPath: optional("ORCH_CATALOG_MOUNT_PATH", "the folder `catalog` in the data directory", path),

  bootTimeoutMs: withDefault("ORCH_BOOT_TIMEOUT_S", "60", seconds(0.1)),
  healthIntervalMs: withDefault("ORCH_HEALTH_CHECK_INTERVAL_S", "30", seconds(0.05)),
  healthTimeoutMs: withDefault("ORCH_HEALTH_CHECK_TIMEOUT_S", "10", seconds(0.05)),
  healthMaxFailures: withDefault("ORCH_HEALTH_MAX_FAILURES", "3", wholeNumber(1, 1_000)),
  restartBackoffBaseMs: withDefault("ORCH_RESTART_BACKOFF_BASE_S", "5", seconds(0.01)),
  restartBackoffMaxMs: withDefault("ORCH_RESTART_BACKOFF_MAX_S", "300", seconds(0.01)),
  restartMaxAttempts: withDefault("ORCH_RESTART_MAX_ATTEMPTS", "8", wholeNumber(0, 1_000)),
  stopGraceMs: withDefault("ORCH_STOP_GRACE_S", "30", seconds(0, 3_600)),
  drainDelayMs: withDefault("ORCH_DRAIN_DELAY_S", "0", { ...seconds(0, 3_600), productionDefault: "5" }),
  drainMs: withDefault("ORCH_DRAIN_S", "60", seconds(0, 86_400)),
  heartbeatMs: withDefault("ORCH_HEARTBEAT_S", "5", seconds(0.05, 3_600)),
  leaseMs: withDefault("ORCH_LEASE_S", "15", seconds(0.1, 86_400)),

  auditRetentionMs: optional("ORCH_AUDIT_RETENTION_S", "for ever", auditRetentionSeconds),
  turnRetentionMs: withDefault("ORCH_TURN_RETENTION_S", "10800", retentionSeconds),
  turnMaxBytes: withDefault("ORCH_TURN_MAX_BYTES", "67108864", wholeNumber(1, 1_099_511_627_776)),
  eventMaxBytes: withDefault("ORCH_EVENT_MAX_BYTES", "1048576", wholeNumber(1, 67_108_864)),
  turnLogBytesPerHour: withDefault(
    "ORCH_TURN_LOG_BYTES_PER_HOUR",
    "536870912",
    wholeNumber(1, 1_099_511_627_776),
  ),
  sealTurns: withDefault("ORCH_SEAL_TURNS", "false", { ...flag, productionDefault: "true" }),
  dataKeysDir: optional(
    "ORCH_DATA_KEYS_DIR",
    "`data-keys` in the data directory; in production no folder",
    path,
  ),
  maxLiveTurns: withDefault("ORCH_MAX_LIVE_TURNS", "2000", wholeNumber(0, 1_000_000)),
  maxOpenStreams: optional(
    "ORCH_MAX_OPEN_STREAMS",
    "half of the connections that the process serves",
    wholeNumber(0, 1_000_000),
  ),
  turnIdleTimeoutMs: withDefault("ORCH_TURN_IDLE_TIMEOUT_S", "600", seconds(0.05)),
  hitlTimeoutMs: withDefault("ORCH_HITL_TIMEOUT_S", "259200", seconds(0.05)),
};

/** The parsed value of every setting. */
export type SettingValues = {
  [Name in keyof typeof SETTINGS]: (typeof SETTINGS)[Name] extends Setting<infer T> ? T : never;
};

/** Names that are reserved for later. Setting one has no effect yet, and logs a warning. */
export const PLANNED_SETTINGS = [
  "ORCH_ENGINE_ADDRESSING",
  "ORCH_FLEET_BRAKE_SHARE",
  "ORCH_IDLE_PAUSE_AFTER_S",
  "ORCH_IDLE_STOP_AFTER_S",
  "ORCH_ORPHAN_GRACE_S",
  "ORCH_METRICS_HOST",
  "ORCH_METRICS_PORT",
] as const;
