import { sql } from "drizzle-orm";
import {
  boolean,
  check,
  index,
  integer,
  jsonb,
  pgTable,
  primaryKey,
  text,
  uniqueIndex,
  uuid,
} from "drizzle-orm/pg-core";
import { at, bytes, long, oneOf } from "./columns.ts";

/*
 * Partitions, triggers and functions are hand-written SQL in the migrations, because drizzle-kit does not see them.
 * JSON from engines and callers is stored as text, because jsonb refuses NUL escapes and lone surrogates.
 */

/** The inputs of an engine's containers. */
export interface EngineSpec {
  /** The name that the caller or the configuration gave. */
  image: string;
  /** Where the image came from. Only a `default` image follows later changes of the configuration. */
  imageFrom: "default" | "policy" | "caller";
  /** The image id at the first boot. Later containers use the same id. */
  imageId: string | null;
  /** Variables that the container gets from the service's environment. Their values are never stored. */
  environmentNames: readonly string[];
  limits: {
    memoryMb: number;
    cpus: number;
    pids: number;
    readOnly: boolean;
    capAdd: readonly string[];
    user: string | null;
  };
  /** The limits that the product's policy has set. */
  limitOverrides: Partial<Pick<EngineSpec["limits"], "memoryMb" | "cpus" | "pids" | "readOnly">>;
  network: string;
  /** The network has no way out. Absent: it has one. */
  internal?: true;
  enginePort: number;
  catalogPath: string;
}

export const ENGINE_STATUSES = [
  "provisioning",
  "starting",
  "running",
  "sleeping",
  "stopping",
  "stopped",
  "failed",
  "destroying",
] as const;
export const DESIRED_STATES = ["running", "paused", "stopped", "destroyed"] as const;
export const TURN_STATUSES = [
  "starting",
  "streaming",
  "completed",
  "failed",
  "interrupted",
  "cancelled",
] as const;
export const SCOPES = ["read", "lifecycle", "turns", "rpc", "keys"] as const;

/** One row: the id of this installation, and the runtime of its engines. */
export const instance = pgTable(
  "instance",
  {
    singleton: boolean().primaryKey().default(true),
    id: uuid().notNull(),
    runtimeKind: text(),
    runtimeHost: text(),
    markedAt: at("marked_at"),
    createdAt: at("created_at").notNull(),
  },
  () => [check("instance_singleton_check", sql.raw("singleton"))],
);

export const replicas = pgTable("replicas", {
  id: uuid().primaryKey(),
  runtimeHost: text("runtime_host").notNull(),
  /** The host's boot id, pid namespace, pid and start time. null: the replica does not run on Linux. */
  processIdentity: text("process_identity"),
  startedAt: at("started_at").notNull(),
  heartbeatAt: at("heartbeat_at").notNull(),
});

export const products = pgTable(
  "products",
  {
    id: uuid().primaryKey(),
    slug: text().notNull(),
    name: text().notNull(),
    policy: jsonb().notNull().default({}),
    createdAt: at("created_at").notNull(),
    deletedAt: at("deleted_at"),
    /** Covers id, slug, policy and whether the product is removed. */
    mac: text(),
  },
  (table) => [
    uniqueIndex("products_slug_key")
      .on(table.slug)
      .where(sql`deleted_at is null`),
  ],
);

export const platformKeys = pgTable(
  "platform_keys",
  {
    id: uuid().primaryKey(),
    productId: uuid("product_id")
      .notNull()
      .references(() => products.id),
    name: text().notNull(),
    prefix: text().notNull(),
    hash: text().notNull(),
    scopes: text({ enum: SCOPES }).array().notNull(),
    createdAt: at("created_at").notNull(),
    expiresAt: at("expires_at"),
    /** The key is refused from this instant on. During a grace period, the instant lies in the future. */
    revokedAt: at("revoked_at"),
    lastUsedAt: at("last_used_at"),
    /** Covers every column but the time of the last use. */
    mac: text(),
  },
  (table) => [
    uniqueIndex("platform_keys_hash_key").on(table.hash),
    index("platform_keys_product_idx").on(table.productId, table.id),
  ],
);

export const operators = pgTable(
  "operators",
  {
    id: uuid().primaryKey(),
    name: text().notNull(),
    prefix: text().notNull(),
    hash: text().notNull(),
    createdAt: at("created_at").notNull(),
    expiresAt: at("expires_at"),
    revokedAt: at("revoked_at"),
    lastUsedAt: at("last_used_at"),
    mac: text(),
  },
  (table) => [
    uniqueIndex("operators_hash_key").on(table.hash),
    uniqueIndex("operators_name_key")
      .on(sql`lower(${table.name})`)
      .where(sql`revoked_at is null`),
  ],
);

export const engines = pgTable(
  "engines",
  {
    id: uuid().primaryKey(),
    productId: uuid("product_id")
      .notNull()
      .references(() => products.id),
    userId: text("user_id").notNull(),

    desired: text({ enum: DESIRED_STATES }).notNull(),
    desiredBy: text("desired_by", { enum: ["caller", "idle"] }).notNull(),
    status: text({ enum: ENGINE_STATUSES }).notNull(),
    statusReason: text("status_reason"),
    gate: text({ enum: ["open", "closed"] })
      .notNull()
      .default("open"),

    /** The spec of the container. It changes only when an operation recreates the container. */
    spec: jsonb().$type<EngineSpec>().notNull(),
    specHash: text("spec_hash").notNull(),
    volumeName: text("volume_name").notNull(),
    runtimeHost: text("runtime_host").notNull(),
    /** The reserved host port, kept while a container may exist. Always null when the runtime publishes no host ports. */
    hostPort: integer("host_port"),
    /** Base URL at which the container was observed; null while no container may exist. */
    endpoint: text(),

    /** The desired incarnation. If it is above the observed one, the container must be replaced. */
    incarnation: integer().notNull(),
    containerId: text("container_id"),
    /** The last observed process, as the runtime names it. A new process increments the generation. */
    processIdentity: text("process_identity"),
    /** When the last observed process started, by the clock of the runtime. */
    processStartedAt: at("process_started_at"),
    generation: integer().notNull(),
    /** The process that a restart must replace. If the present process is another one, the restart has happened. */
    processToReplace: text("process_to_replace"),
    /** The process before this boot. If a later process exits, this boot has failed. */
    processBeforeBoot: text("process_before_boot"),
    /** The grace period of the current stop, as the caller set it. */
    stopGraceMs: integer("stop_grace_ms"),

    keyHash: text("key_hash").notNull(),
    keySealed: text("key_sealed").notNull(),
    keyPrefix: text("key_prefix").notNull(),
    nextKeyHash: text("next_key_hash"),
    nextKeySealed: text("next_key_sealed"),
    nextKeyPrefix: text("next_key_prefix"),

    /** Covers what is run and mounted, and the keys that the engine accepts. The other one covers the endpoint. */
    mac: text(),
    endpointMac: text("endpoint_mac"),

    bootStartedAt: at("boot_started_at"),
    bootMs: integer("boot_ms"),
    firstReadyAt: at("first_ready_at"),
    healthFailures: integer("health_failures").notNull().default(0),
    restarts: integer().notNull().default(0),
    restartAttempts: integer("restart_attempts").notNull().default(0),
    nextRestartAt: at("next_restart_at"),
    nextCheckAt: at("next_check_at").notNull(),
    leaseReplica: uuid("lease_replica"),
    fencingToken: long("fencing_token").notNull().default(0),

    lastHealthAt: at("last_health_at"),
    lastActivityAt: at("last_activity_at"),
    createdAt: at("created_at").notNull(),
    updatedAt: at("updated_at").notNull(),
  },
  (table) => [
    uniqueIndex("engines_product_user_key").on(table.productId, table.userId),
    index("engines_product_idx").on(table.productId, table.id),
    uniqueIndex("engines_host_port_key").on(table.runtimeHost, table.hostPort),
    index("engines_due_idx").on(table.runtimeHost, table.nextCheckAt),
    check("engines_status_check", oneOf("status", ENGINE_STATUSES)),
    check("engines_desired_check", oneOf("desired", DESIRED_STATES)),
    check("engines_generation_check", sql`generation >= 1`),
    check("engines_incarnation_check", sql`incarnation >= 1`),
    check("engines_next_key_check", sql`(next_key_hash is null) = (next_key_sealed is null)`),
  ],
);

/** What remains of a destroyed engine until a resync has observed no container and no volume of it. */
export const tombstones = pgTable("tombstones", {
  engineId: uuid("engine_id").primaryKey(),
  productId: uuid("product_id").notNull(),
  userId: text("user_id").notNull(),
  runtimeHost: text("runtime_host").notNull(),
  volumeName: text("volume_name").notNull(),
  destroyedAt: at("destroyed_at").notNull(),
});

export const holds = pgTable(
  "holds",
  {
    engineId: uuid("engine_id").notNull(),
    replicaId: uuid("replica_id").notNull(),
    count: integer().notNull(),
    expiresAt: at("expires_at").notNull(),
  },
  (table) => [primaryKey({ columns: [table.engineId, table.replicaId] })],
);

export const turns = pgTable(
  "turns",
  {
    productId: uuid("product_id").notNull(),
    id: uuid().notNull(),
    userId: text("user_id").notNull(),
    engineId: uuid("engine_id").notNull(),
    generation: integer().notNull(),
    taskId: text("task_id").notNull(),
    /** HMAC of the canonical input. The same id with another input is refused. */
    fingerprint: text().notNull(),
    /** The id of the key that started the turn. null: an earlier version wrote the row. */
    startedBy: text("started_by"),
    status: text({ enum: TURN_STATUSES }).notNull(),
    ownerReplica: uuid("owner_replica").notNull(),
    fencingToken: long("fencing_token").notNull(),
    /** The sequence number of the last event in the log, or of the end. */
    lastSeq: long("last_seq").notNull().default(0),
    reservedSeq: long("reserved_seq").notNull(),
    bytes: long("bytes").notNull().default(0),
    startedAt: at("started_at").notNull(),
    endedAt: at("ended_at"),
    /** The end as JSON text; null while the turn is live. The engine's words in it may be sealed. */
    end: text(),
  },
  (table) => [
    primaryKey({ columns: [table.productId, table.id] }),
    uniqueIndex("turns_live_task_key")
      .on(table.engineId, table.taskId)
      .where(sql`status in ('starting', 'streaming')`),
    index("turns_user_idx").on(table.productId, table.userId, table.startedAt),
    index("turns_live_idx")
      .on(table.ownerReplica)
      .where(sql`status in ('starting', 'streaming')`),
    index("turns_live_product_idx")
      .on(table.productId, table.startedBy)
      .where(sql`status in ('starting', 'streaming')`),
    index("turns_started_idx").on(table.startedAt),
    check("turns_status_check", oneOf("status", TURN_STATUSES)),
    check("turns_end_check", sql`(ended_at is null) = (status in ('starting', 'streaming'))`),
    check("turns_reserved_check", sql`last_seq <= reserved_seq + 1`),
  ],
);

/** Each row holds the events of one turn from one commit. The hourly partitions follow the turn's start. */
export const turnEvents = pgTable(
  "turn_events",
  {
    productId: uuid("product_id").notNull(),
    turnId: uuid("turn_id").notNull(),
    turnStartedAt: at("turn_started_at").notNull(),
    firstSeq: long("first_seq").notNull(),
    lastSeq: long("last_seq").notNull(),
    /** A JSON array of events, as text; null if the row is sealed. */
    events: text(),
    /** The same array, sealed with a data key of the partition's hour; null if the row is not sealed. */
    sealed: bytes("sealed"),
    /** The engine's id of the last of these events; null if the engine does not number its events. */
    engineEventId: text("engine_event_id"),
  },
  (table) => [primaryKey({ columns: [table.productId, table.turnId, table.firstSeq, table.turnStartedAt] })],
);

export const idempotency = pgTable(
  "idempotency",
  {
    /** The caller: a product's id, or `operator:<id of the key>`. */
    scope: text().notNull(),
    key: text().notNull(),
    procedure: text().notNull(),
    /** HMAC of the canonical input. */
    fingerprint: text().notNull(),
    state: text({ enum: ["running", "done"] }).notNull(),
    replicaId: uuid("replica_id").notNull(),
    /** The object of the first attempt, such as an engine id. After a crash, a retry resumes the work on this object. */
    subject: text(),
    replySealed: text("reply_sealed"),
    createdAt: at("created_at").notNull(),
    expiresAt: at("expires_at").notNull(),
  },
  (table) => [
    primaryKey({ columns: [table.scope, table.key] }),
    index("idempotency_expires_idx").on(table.expiresAt),
    check("idempotency_reply_check", sql`(state = 'done') = (reply_sealed is not null)`),
    check("idempotency_state_check", oneOf("state", ["running", "done"])),
  ],
);
