CREATE UNLOGGED TABLE "data_keys" (
	"id" uuid PRIMARY KEY NOT NULL,
	"hour" text NOT NULL,
	"sealed" text NOT NULL
);
--> statement-breakpoint
ALTER TABLE "turn_events" ALTER COLUMN "events" DROP NOT NULL;--> statement-breakpoint
ALTER TABLE "turn_events" ADD COLUMN "sealed" "bytea";--> statement-breakpoint
-- Sealed bytes do not compress, so Postgres must not try.
ALTER TABLE "turn_events" ALTER COLUMN "sealed" SET STORAGE EXTERNAL;--> statement-breakpoint
-- True if the partition of this hour is gone, and no turn of this hour can write again.
CREATE FUNCTION is_turn_hour_retired(turn_hour text, retention interval) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
DECLARE
  low timestamptz := to_timestamp(turn_hour || '+00', 'YYYYMMDDHH24TZH');
  cutoff timestamptz := orch_now() - retention;
BEGIN
  RETURN low + interval '1 hour' <= cutoff
    AND NOT EXISTS (
      SELECT FROM pg_class WHERE relname = 'turn_events_' || turn_hour
        AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'turn_events'::regclass))
    AND NOT EXISTS (
      SELECT FROM turns WHERE started_at >= low AND started_at < low + interval '1 hour'
        AND (ended_at IS NULL OR ended_at > cutoff));
END
$$;--> statement-breakpoint
-- Removes the data keys of retired hours, and returns their number. A deleted row would stay in its page for long, so
-- the remaining keys move to a new file, and Postgres removes the old file.
CREATE FUNCTION destroy_data_keys(retention interval) RETURNS bigint LANGUAGE plpgsql SET lock_timeout = '2s' AS $$
DECLARE
  kept data_keys[];
  retired bigint;
BEGIN
  SELECT count(*) INTO retired FROM data_keys WHERE is_turn_hour_retired(hour, retention);
  IF retired = 0 THEN RETURN 0; END IF;
  LOCK TABLE data_keys IN ACCESS EXCLUSIVE MODE;
  SELECT array_agg(data_keys) INTO kept FROM data_keys WHERE NOT is_turn_hour_retired(hour, retention);
  TRUNCATE data_keys;
  INSERT INTO data_keys SELECT * FROM unnest(kept);
  RETURN retired;
END
$$;
