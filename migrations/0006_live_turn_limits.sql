ALTER TABLE "turns" ADD COLUMN "started_by" text;--> statement-breakpoint
CREATE INDEX "turns_live_product_idx" ON "turns" USING btree ("product_id","started_by") WHERE status in ('starting', 'streaming');--> statement-breakpoint
-- Why a product may not begin another turn now: `product` or `key` names the reached limit. Null: it may, and the caller
-- inserts the turn in the same statement. The answer is exact over all sessions:
--
-- Alone, a session waits for every other session that begins a turn of the product, and counts what they have committed.
-- Shared, sessions do not wait for each other. Each of them sees room for every session that Postgres has, so all of them
-- together stay below the limit. With less room the answer is `again`: repeat the statement with `alone`.
--
-- The function is volatile, so its count has a snapshot of its own, taken after the wait for the lock.
CREATE FUNCTION refuse_live_turn(
  of_product uuid, of_key text, product_max integer, key_max integer, alone boolean
) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  lock_space constant integer := 1819503201;
  sessions constant integer := current_setting('max_connections')::integer;
  is_alone constant boolean := alone OR least(product_max, key_max) < sessions;
  product_room bigint;
  key_room bigint;
BEGIN
  IF is_alone THEN
    PERFORM pg_advisory_xact_lock(lock_space, hashtext(of_product::text));
  ELSE
    PERFORM pg_advisory_xact_lock_shared(lock_space, hashtext(of_product::text));
  END IF;
  SELECT product_max - count(*), key_max - count(*) FILTER (WHERE started_by = of_key) INTO product_room, key_room
  FROM turns WHERE product_id = of_product AND status IN ('starting', 'streaming');
  IF product_room <= 0 THEN RETURN 'product'; END IF;
  IF key_room <= 0 THEN RETURN 'key'; END IF;
  IF NOT is_alone AND least(product_room, key_room) < sessions THEN RETURN 'again'; END IF;
  RETURN NULL;
END
$$;
