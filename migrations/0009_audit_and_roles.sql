CREATE TABLE "audit_anchors" (
	"scope" text NOT NULL,
	"kind" text NOT NULL,
	"seq" bigint NOT NULL,
	"hash" text NOT NULL,
	"at" timestamp with time zone NOT NULL,
	"mac" text NOT NULL,
	CONSTRAINT "audit_anchors_scope_kind_pk" PRIMARY KEY("scope","kind"),
	CONSTRAINT "audit_anchors_kind_check" CHECK (kind in ('head', 'start'))
);
--> statement-breakpoint
CREATE TABLE "audit_retention" (
	"singleton" boolean PRIMARY KEY DEFAULT true NOT NULL,
	"seconds" bigint NOT NULL,
	CONSTRAINT "audit_retention_singleton_check" CHECK (singleton)
);
--> statement-breakpoint
-- The audit log is append-only, for its owner too. Row triggers of a partitioned table reach its partitions. TRUNCATE
-- triggers do not, so each partition has one of its own. Only retire_audit may remove rows: it sets the variable, and runs
-- as the owner. Anybody can set the variable, so the role decides too.
CREATE OR REPLACE FUNCTION audit_log_refuse_change() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF TG_OP = 'DELETE' AND TG_LEVEL = 'ROW' AND TG_TABLE_NAME LIKE 'audit\_log%'
     AND current_setting('enginehouse.retires_audit', true) = 'on'
     AND pg_has_role(current_user, (SELECT relowner FROM pg_class WHERE oid = TG_RELID), 'USAGE') THEN
    RETURN OLD;
  END IF;
  RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'restrict_violation';
END
$$;--> statement-breakpoint
CREATE TRIGGER audit_log_no_truncate BEFORE TRUNCATE ON "audit_log" FOR EACH STATEMENT EXECUTE FUNCTION audit_log_refuse_change();--> statement-breakpoint
DO $$
DECLARE
  part regclass;
BEGIN
  FOR part IN SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'audit_log'::regclass LOOP
    EXECUTE format('CREATE TRIGGER audit_log_no_truncate BEFORE TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION audit_log_refuse_change()', part);
  END LOOP;
END
$$;--> statement-breakpoint
CREATE TRIGGER audit_heads_no_delete BEFORE DELETE OR TRUNCATE ON "audit_heads" FOR EACH STATEMENT EXECUTE FUNCTION audit_log_refuse_change();--> statement-breakpoint
-- The condition is an expression, so an append calls no trigger function.
CREATE TRIGGER audit_heads_step BEFORE UPDATE ON "audit_heads" FOR EACH ROW
  WHEN (NEW.seq <> OLD.seq + 1 OR NEW.scope <> OLD.scope) EXECUTE FUNCTION audit_log_refuse_change();--> statement-breakpoint
CREATE TRIGGER audit_anchors_no_delete BEFORE DELETE OR TRUNCATE ON "audit_anchors" FOR EACH STATEMENT EXECUTE FUNCTION audit_log_refuse_change();--> statement-breakpoint
-- The functions below run with the rights of the schema's owner, so that the role of the service needs none of them.
-- Each takes only what this service may ask for.
CREATE OR REPLACE FUNCTION ensure_audit_partition(wanted_seq bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  size constant bigint := 10000000;
  low bigint := wanted_seq / size * size;
  part text := 'audit_log_' || (wanted_seq / size);
  holder text;
BEGIN
  IF wanted_seq >= 0 AND to_regclass(part) IS NOT NULL THEN RETURN; END IF;
  IF wanted_seq IS NULL OR wanted_seq < 0 OR wanted_seq > (SELECT coalesce(max(seq), 0) + 2 * size FROM audit_heads) THEN
    RAISE EXCEPTION 'no chain of the audit log needs a partition for row %', wanted_seq USING ERRCODE = 'invalid_parameter_value';
  END IF;
  PERFORM pg_advisory_xact_lock(hashtext('enginehouse.partitions'));
  -- A query sees what the lock's last holder committed; to_regclass may still answer from this session's cache.
  IF EXISTS (SELECT FROM pg_class WHERE relname = part AND relnamespace = current_schema()::regnamespace) THEN RETURN; END IF;
  EXECUTE format('CREATE TABLE %I (LIKE audit_log INCLUDING ALL)', part);
  -- ALTER DEFAULT PRIVILEGES may have given more than reading to other roles.
  FOR holder IN
    SELECT DISTINCT CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE acl.grantee::regrole::text END
    FROM pg_class, aclexplode(relacl) acl WHERE pg_class.oid = part::regclass AND acl.grantee <> relowner
  LOOP
    EXECUTE format('REVOKE INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER ON %I FROM %s', part, holder);
  END LOOP;
  EXECUTE format('CREATE TRIGGER audit_log_no_truncate BEFORE TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION audit_log_refuse_change()', part);
  EXECUTE format('ALTER TABLE audit_log ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)', part, low, low + size);
END
$$;--> statement-breakpoint
CREATE OR REPLACE FUNCTION ensure_turn_partition(wanted_at timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  low timestamptz := date_trunc('hour', wanted_at, 'UTC');
  part text := 'turn_events_' || to_char(wanted_at AT TIME ZONE 'UTC', 'YYYYMMDDHH24');
BEGIN
  IF to_regclass(part) IS NOT NULL THEN RETURN; END IF;
  IF wanted_at IS NULL OR wanted_at < orch_now() - interval '400 days' OR wanted_at > orch_now() + interval '2 days' THEN
    RAISE EXCEPTION 'no turn needs a partition for %', wanted_at USING ERRCODE = 'invalid_parameter_value';
  END IF;
  PERFORM pg_advisory_xact_lock(hashtext('enginehouse.partitions'));
  -- A query sees what the lock's last holder committed; to_regclass may still answer from this session's cache.
  IF EXISTS (SELECT FROM pg_class WHERE relname = part AND relnamespace = current_schema()::regnamespace) THEN RETURN; END IF;
  EXECUTE format('CREATE TABLE %I (LIKE turn_events INCLUDING ALL)', part);
  EXECUTE format('ALTER TABLE turn_events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', part, low, low + interval '1 hour');
END
$$;--> statement-breakpoint
-- DETACH ... CONCURRENTLY cannot run in a function. So the drop locks turn_events exclusively, but waits for that lock for
-- 50 ms only: readers and writers behind it wait no longer than that. The caller tries again later.
CREATE FUNCTION drop_turn_partition(part text) RETURNS void LANGUAGE plpgsql SET lock_timeout = '50ms' AS $$
DECLARE
  low timestamptz;
BEGIN
  IF part !~ '^turn_events_[0-9]{10}$' OR NOT EXISTS (
    SELECT FROM pg_class WHERE relname = part AND relnamespace = current_schema()::regnamespace AND relkind = 'r'
  ) THEN
    RAISE EXCEPTION '% is no partition of the turn log', part USING ERRCODE = 'invalid_parameter_value';
  END IF;
  low := to_timestamp(right(part, 10) || '+00', 'YYYYMMDDHH24TZH');
  IF low + interval '1 hour' > orch_now() OR EXISTS (
    SELECT FROM turns WHERE started_at >= low AND started_at < low + interval '1 hour' AND ended_at IS NULL
  ) THEN
    RAISE EXCEPTION '% is in use', part USING ERRCODE = 'restrict_violation';
  END IF;
  IF EXISTS (
    SELECT FROM pg_inherits WHERE inhparent = 'turn_events'::regclass AND inhrelid = part::regclass AND inhdetachpending
  ) THEN
    EXECUTE format('ALTER TABLE turn_events DETACH PARTITION %I FINALIZE', part);
  END IF;
  EXECUTE format('DROP TABLE %I', part);
END
$$;--> statement-breakpoint
-- Removes the oldest rows of a chain: only up to its `start` anchor, and only rows that are as old as the owner of the
-- schema allows in audit_retention. Without a row there, nothing is removed.
CREATE FUNCTION retire_audit(of_scope text, max_rows integer) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  removed bigint;
BEGIN
  PERFORM set_config('enginehouse.retires_audit', 'on', true);
  WITH oldest AS (
    SELECT log.scope, log.seq FROM audit_log log
    JOIN audit_anchors anchor ON anchor.scope = log.scope AND anchor.kind = 'start' AND log.seq <= anchor.seq
    CROSS JOIN audit_retention retention
    WHERE log.scope = of_scope AND log.at < orch_now() - make_interval(secs => retention.seconds::float8)
    ORDER BY log.seq LIMIT max_rows
  )
  DELETE FROM audit_log log USING oldest WHERE log.scope = oldest.scope AND log.seq = oldest.seq;
  GET DIAGNOSTICS removed = ROW_COUNT;
  PERFORM set_config('enginehouse.retires_audit', 'off', true);
  RETURN removed;
END
$$;--> statement-breakpoint
-- The path is fixed: pg_catalog is first without being named, and temporary tables come last. The role of the service must
-- not have CREATE on the schema, because a function with a closer match of types would be called even from there.
DO $$
DECLARE
  one regprocedure;
BEGIN
  FOR one IN
    SELECT oid::regprocedure FROM pg_proc
    WHERE pronamespace = current_schema()::regnamespace AND proname IN ('append_audit', 'ensure_audit_partition',
      'ensure_turn_partition', 'drop_turn_partition', 'retire_audit', 'destroy_data_keys')
  LOOP
    EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = %I, pg_temp', one, current_schema());
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', one);
  END LOOP;
END
$$;
