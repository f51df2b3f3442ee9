-- The one notion of "now" for everything that decides by time. Tests replace it in their own database to shift the clock.
-- STABLE, so that comparisons with it can use an index.
CREATE FUNCTION orch_now() RETURNS timestamptz LANGUAGE sql STABLE AS 'select statement_timestamp()';--> statement-breakpoint
CREATE TABLE "audit_heads" (
	"scope" text PRIMARY KEY NOT NULL,
	"seq" bigint NOT NULL,
	"hash" text NOT NULL
);
--> statement-breakpoint
CREATE TABLE "audit_log" (
	"scope" text NOT NULL,
	"seq" bigint NOT NULL,
	"at" timestamp with time zone NOT NULL,
	"actor" text NOT NULL,
	"action" text NOT NULL,
	"user_id" text,
	"engine_id" uuid,
	"request_id" text,
	"metadata" text NOT NULL,
	"duration_ms" integer,
	"prev_hash" text NOT NULL,
	"hash" text NOT NULL,
	CONSTRAINT "audit_log_scope_seq_pk" PRIMARY KEY("scope","seq")
) PARTITION BY RANGE ("seq");
--> statement-breakpoint
CREATE TABLE "engines" (
	"id" uuid PRIMARY KEY NOT NULL,
	"product_id" uuid NOT NULL,
	"user_id" text NOT NULL,
	"desired" text NOT NULL,
	"desired_by" text NOT NULL,
	"status" text NOT NULL,
	"status_reason" text,
	"gate" text DEFAULT 'open' NOT NULL,
	"spec" jsonb NOT NULL,
	"spec_hash" text NOT NULL,
	"volume_name" text NOT NULL,
	"runtime_host" text NOT NULL,
	"host_port" integer,
	"incarnation" integer NOT NULL,
	"container_id" text,
	"process_identity" text,
	"generation" integer NOT NULL,
	"restart_of" text,
	"boot_of" text,
	"stop_grace_ms" integer,
	"key_hash" text NOT NULL,
	"key_sealed" text NOT NULL,
	"key_prefix" text NOT NULL,
	"next_key_hash" text,
	"next_key_sealed" text,
	"next_key_prefix" text,
	"boot_started_at" timestamp with time zone,
	"boot_ms" integer,
	"first_ready_at" timestamp with time zone,
	"health_failures" integer DEFAULT 0 NOT NULL,
	"restarts" integer DEFAULT 0 NOT NULL,
	"restart_attempts" integer DEFAULT 0 NOT NULL,
	"next_restart_at" timestamp with time zone,
	"next_check_at" timestamp with time zone NOT NULL,
	"driver_replica" uuid,
	"fence" bigint DEFAULT 0 NOT NULL,
	"last_health_at" timestamp with time zone,
	"last_activity_at" timestamp with time zone,
	"created_at" timestamp with time zone NOT NULL,
	"updated_at" timestamp with time zone NOT NULL,
	CONSTRAINT "engines_status_check" CHECK (status in ('provisioning', 'starting', 'running', 'sleeping', 'stopping', 'stopped', 'failed', 'destroying')),
	CONSTRAINT "engines_desired_check" CHECK (desired in ('running', 'paused', 'stopped', 'destroyed')),
	CONSTRAINT "engines_generation_check" CHECK (generation >= 1),
	CONSTRAINT "engines_incarnation_check" CHECK (incarnation >= 1),
	CONSTRAINT "engines_next_key_check" CHECK ((next_key_hash is null) = (next_key_sealed is null))
);
--> statement-breakpoint
CREATE TABLE "holds" (
	"engine_id" uuid NOT NULL,
	"replica_id" uuid NOT NULL,
	"count" integer NOT NULL,
	"expires_at" timestamp with time zone NOT NULL,
	CONSTRAINT "holds_engine_id_replica_id_pk" PRIMARY KEY("engine_id","replica_id")
);
--> statement-breakpoint
CREATE TABLE "idempotency" (
	"scope" text NOT NULL,
	"key" text NOT NULL,
	"procedure" text NOT NULL,
	"fingerprint" text NOT NULL,
	"state" text NOT NULL,
	"replica_id" uuid NOT NULL,
	"subject" text,
	"reply_sealed" text,
	"created_at" timestamp with time zone NOT NULL,
	"expires_at" timestamp with time zone NOT NULL,
	CONSTRAINT "idempotency_scope_key_pk" PRIMARY KEY("scope","key"),
	CONSTRAINT "idempotency_reply_check" CHECK ((state = 'done') = (reply_sealed is not null)),
	CONSTRAINT "idempotency_state_check" CHECK (state in ('running', 'done'))
);
--> statement-breakpoint
CREATE TABLE "instance" (
	"singleton" boolean PRIMARY KEY DEFAULT true NOT NULL,
	"id" uuid NOT NULL,
	"runtimeKind" text,
	"runtimeHost" text,
	"marked_at" timestamp with time zone,
	"created_at" timestamp with time zone NOT NULL,
	CONSTRAINT "instance_singleton_check" CHECK (singleton)
);
--> statement-breakpoint
CREATE TABLE "operators" (
	"id" uuid PRIMARY KEY NOT NULL,
	"name" text NOT NULL,
	"prefix" text NOT NULL,
	"hash" text NOT NULL,
	"created_at" timestamp with time zone NOT NULL,
	"expires_at" timestamp with time zone,
	"revoked_at" timestamp with time zone,
	"last_used_at" timestamp with time zone
);
--> statement-breakpoint
CREATE TABLE "platform_keys" (
	"id" uuid PRIMARY KEY NOT NULL,
	"product_id" uuid NOT NULL,
	"name" text NOT NULL,
	"prefix" text NOT NULL,
	"hash" text NOT NULL,
	"scopes" text[] NOT NULL,
	"created_at" timestamp with time zone NOT NULL,
	"expires_at" timestamp with time zone,
	"revoked_at" timestamp with time zone,
	"last_used_at" timestamp with time zone
);
--> statement-breakpoint
CREATE TABLE "products" (
	"id" uuid PRIMARY KEY NOT NULL,
	"slug" text NOT NULL,
	"name" text NOT NULL,
	"policy" jsonb DEFAULT '{}'::jsonb NOT NULL,
	"created_at" timestamp with time zone NOT NULL,
	"deleted_at" timestamp with time zone
);
--> statement-breakpoint
CREATE TABLE "replicas" (
	"id" uuid PRIMARY KEY NOT NULL,
	"runtime_host" text NOT NULL,
	"process_identity" text,
	"started_at" timestamp with time zone NOT NULL,
	"heartbeat_at" timestamp with time zone NOT NULL
);
--> statement-breakpoint
CREATE TABLE "tombstones" (
	"engine_id" uuid PRIMARY KEY NOT NULL,
	"product_id" uuid NOT NULL,
	"user_id" text NOT NULL,
	"runtime_host" text NOT NULL,
	"volume_name" text NOT NULL,
	"destroyed_at" timestamp with time zone NOT NULL
);
--> statement-breakpoint
CREATE TABLE "turn_events" (
	"product_id" uuid NOT NULL,
	"turn_id" uuid NOT NULL,
	"turn_started_at" timestamp with time zone NOT NULL,
	"first_seq" bigint NOT NULL,
	"last_seq" bigint NOT NULL,
	"events" text NOT NULL,
	CONSTRAINT "turn_events_product_id_turn_id_first_seq_turn_started_at_pk" PRIMARY KEY("product_id","turn_id","first_seq","turn_started_at")
) PARTITION BY RANGE ("turn_started_at");
--> statement-breakpoint
CREATE TABLE "turns" (
	"product_id" uuid NOT NULL,
	"id" uuid NOT NULL,
	"user_id" text NOT NULL,
	"engine_id" uuid NOT NULL,
	"generation" integer NOT NULL,
	"task_id" text NOT NULL,
	"fingerprint" text NOT NULL,
	"status" text NOT NULL,
	"owner_replica" uuid NOT NULL,
	"fence" bigint NOT NULL,
	"last_seq" bigint DEFAULT 0 NOT NULL,
	"reserved_seq" bigint NOT NULL,
	"bytes" bigint DEFAULT 0 NOT NULL,
	"started_at" timestamp with time zone NOT NULL,
	"ended_at" timestamp with time zone,
	"end" text,
	CONSTRAINT "turns_product_id_id_pk" PRIMARY KEY("product_id","id"),
	CONSTRAINT "turns_status_check" CHECK (status in ('starting', 'streaming', 'completed', 'failed', 'interrupted', 'cancelled')),
	CONSTRAINT "turns_end_check" CHECK ((ended_at is null) = (status in ('starting', 'streaming'))),
	CONSTRAINT "turns_reserved_check" CHECK (last_seq <= reserved_seq + 1)
);
--> statement-breakpoint
ALTER TABLE "engines" ADD CONSTRAINT "engines_product_id_products_id_fk" FOREIGN KEY ("product_id") REFERENCES "public"."products"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "platform_keys" ADD CONSTRAINT "platform_keys_product_id_products_id_fk" FOREIGN KEY ("product_id") REFERENCES "public"."products"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "audit_log_user_idx" ON "audit_log" USING btree ("scope","user_id","seq");--> statement-breakpoint
CREATE UNIQUE INDEX "engines_product_user_key" ON "engines" USING btree ("product_id","user_id");--> statement-breakpoint
CREATE UNIQUE INDEX "engines_host_port_key" ON "engines" USING btree ("runtime_host","host_port");--> statement-breakpoint
CREATE INDEX "engines_due_idx" ON "engines" USING btree ("runtime_host","next_check_at");--> statement-breakpoint
CREATE INDEX "idempotency_expires_idx" ON "idempotency" USING btree ("expires_at");--> statement-breakpoint
CREATE UNIQUE INDEX "operators_hash_key" ON "operators" USING btree ("hash");--> statement-breakpoint
CREATE UNIQUE INDEX "platform_keys_hash_key" ON "platform_keys" USING btree ("hash");--> statement-breakpoint
CREATE INDEX "platform_keys_product_idx" ON "platform_keys" USING btree ("product_id","id");--> statement-breakpoint
CREATE UNIQUE INDEX "products_slug_key" ON "products" USING btree ("slug") WHERE deleted_at is null;--> statement-breakpoint
CREATE UNIQUE INDEX "turns_live_task_key" ON "turns" USING btree ("engine_id","task_id") WHERE status in ('starting', 'streaming');--> statement-breakpoint
CREATE INDEX "turns_user_idx" ON "turns" USING btree ("product_id","user_id","started_at");--> statement-breakpoint
CREATE INDEX "turns_live_idx" ON "turns" USING btree ("owner_replica") WHERE status in ('starting', 'streaming');--> statement-breakpoint
CREATE INDEX "turns_started_idx" ON "turns" USING btree ("started_at");
--> statement-breakpoint
-- A row of the audit log is never changed. Row triggers of a partitioned table reach its partitions; TRUNCATE triggers do not.
CREATE FUNCTION audit_log_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'audit_log is append-only' USING ERRCODE = 'restrict_violation';
END
$$;--> statement-breakpoint
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE ON "audit_log" FOR EACH ROW EXECUTE FUNCTION audit_log_refuse_change();--> statement-breakpoint
-- Partitions are made as plain tables and then attached: CREATE TABLE ... PARTITION OF would lock the parent exclusively,
-- behind every running reader and in front of every writer.
CREATE FUNCTION ensure_audit_partition(wanted_seq bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  size constant bigint := 10000000;
  low bigint := wanted_seq / size * size;
  part text := 'audit_log_' || (wanted_seq / size);
BEGIN
  IF to_regclass(part) IS NOT NULL THEN RETURN; END IF;
  PERFORM pg_advisory_xact_lock(hashtext('enginehouse.partitions'));
  -- A query sees what the lock's last holder committed; to_regclass may still answer from this session's cache.
  IF EXISTS (SELECT FROM pg_class WHERE relname = part AND relnamespace = current_schema()::regnamespace) THEN RETURN; END IF;
  EXECUTE format('CREATE TABLE %I (LIKE audit_log INCLUDING ALL)', part);
  EXECUTE format('ALTER TABLE audit_log ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)', part, low, low + size);
END
$$;--> statement-breakpoint
CREATE FUNCTION ensure_turn_partition(wanted_at timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  low timestamptz := date_trunc('hour', wanted_at, 'UTC');
  part text := 'turn_events_' || to_char(wanted_at AT TIME ZONE 'UTC', 'YYYYMMDDHH24');
BEGIN
  IF to_regclass(part) IS NOT NULL THEN RETURN; END IF;
  PERFORM pg_advisory_xact_lock(hashtext('enginehouse.partitions'));
  -- A query sees what the lock's last holder committed; to_regclass may still answer from this session's cache.
  IF EXISTS (SELECT FROM pg_class WHERE relname = part AND relnamespace = current_schema()::regnamespace) THEN RETURN; END IF;
  EXECUTE format('CREATE TABLE %I (LIKE turn_events INCLUDING ALL)', part);
  EXECUTE format('ALTER TABLE turn_events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', part, low, low + interval '1 hour');
END
$$;--> statement-breakpoint
SELECT ensure_audit_partition(0);
