-- desk.sql
--     The alert desk, events.desk: the actor "main" writes the table of alerts and shows the latest of them.
--
-- State: the number of alerts that are on (open), and the latest ones, newest first.
CREATE OR REPLACE FUNCTION events_desk_handle(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
  at timestamptz := (message->>'at')::timestamptz;
BEGIN
  IF (message->>'is_on')::boolean THEN
    INSERT INTO events_alert (device_id, kind, value, raised_at)
      VALUES (message->>'device', message->>'kind', (message->>'value')::numeric, at);
  ELSE
    UPDATE events_alert SET resolved_at = at
      WHERE device_id = message->>'device' AND kind = message->>'kind' AND resolved_at IS NULL;
  END IF;
  RETURN jsonb_build_object(
    'open', (SELECT count(*) FROM events_alert WHERE resolved_at IS NULL),
    'latest', (SELECT jsonb_agg(to_jsonb(a) ORDER BY a.id DESC)
      FROM (SELECT * FROM events_alert ORDER BY id DESC LIMIT 12) a));
END $$;
