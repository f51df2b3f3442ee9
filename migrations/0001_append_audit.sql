-- One call, so that a change and its record fit into one statement, and the head is locked no longer than Postgres itself
-- takes from here to the commit. A scope without a head gets one: of several writers at once one makes it, and the others
-- wait for its commit. The clock is read after the wait for the head, so that instants rise with seq.
-- The pieces are the hashed text around instant, previous hash and seq.
CREATE FUNCTION append_audit(
  of_scope text, of_actor text, of_action text, of_user_id text, of_engine_id uuid, of_request_id text, of_metadata text,
  of_duration_ms integer, before_at text, before_prev_hash text, before_seq text, after_seq text
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  last_seq bigint;
  last_hash text;
  next_at timestamptz;
  next_hash text;
BEGIN
  SELECT seq, hash INTO last_seq, last_hash FROM audit_heads WHERE scope = of_scope FOR UPDATE;
  IF NOT FOUND THEN
    INSERT INTO audit_heads (scope, seq, hash) VALUES (of_scope, 0, repeat('0', 64)) ON CONFLICT DO NOTHING;
    SELECT seq, hash INTO STRICT last_seq, last_hash FROM audit_heads WHERE scope = of_scope FOR UPDATE;
  END IF;
  next_at := orch_now() + (clock_timestamp() - statement_timestamp());
  next_hash := encode(sha256(convert_to(
    before_at || to_char(next_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') || before_prev_hash || last_hash ||
    before_seq || (last_seq + 1)::text || after_seq, 'UTF8')), 'hex');
  UPDATE audit_heads SET seq = last_seq + 1, hash = next_hash WHERE scope = of_scope;
  INSERT INTO audit_log (scope, seq, at, actor, action, user_id, engine_id, request_id, metadata, duration_ms, prev_hash, hash)
  VALUES (of_scope, last_seq + 1, next_at, of_actor, of_action, of_user_id, of_engine_id, of_request_id, of_metadata,
    of_duration_ms, last_hash, next_hash);
  RETURN last_seq + 1;
END
$$;
