--
-- Contract 8: a turn takes the due message with the highest priority, then the lowest id, and honours what earlier turns
-- of the same batch have cancelled, stopped or paused.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql

CREATE SEQUENCE ran;
CREATE FUNCTION c08(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	own_type text := (djactor.self()).actor_type;
	own_key text := (djactor.self()).actor_key;
BEGIN
	CASE message ->> 'do'
		WHEN 'cancel' THEN
			PERFORM djactor.cancel(id) FROM djactor.message m WHERE m.payload ->> 'n' = c08.message ->> 'which' AND actor_type = own_type;
		WHEN 'pause' THEN
			PERFORM djactor.pause(own_type, own_key);
		WHEN 'pause type' THEN
			PERFORM djactor.pause(own_type);
		WHEN 'stop' THEN
			PERFORM djactor.stop(discard => true);
		WHEN 'be cancelled' THEN
			PERFORM nextval('ran');
		ELSE NULL;
	END CASE;
	RETURN collect(state, coalesce(message -> 'n', message -> 'do'));
END $$;
SELECT djactor.define_actor_type('c08', 'c08');
-- fills the mailbox at once, so that one batch finds all of it
CREATE PROCEDURE deliver(key text, messages jsonb) LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO djactor.message (actor_type, actor_key, payload, priority)
		SELECT 'c08', key, m, coalesce((m ->> 'priority')::int, 0) FROM jsonb_array_elements(messages) m;
END $$;

-- # The highest priority, then the lowest id
CALL deliver('order', '[{"n": 1}, {"n": 2, "priority": 5}, {"n": 3, "priority": -5}, {"n": 4, "priority": 5}, {"n": 5}, {"n": 6, "priority": 9}]');
CALL idle('c08');

-- # Cancelled by an earlier turn of the batch: not even tried
CALL deliver('cancel', '[{"n": 1}, {"do": "cancel", "which": 3}, {"n": 2}, {"n": 3, "do": "be cancelled"}, {"n": 4}]');
CALL idle('c08');
SELECT is_called AS was_run FROM ran;

-- # Paused: the rest waits
CALL deliver('pause', '[{"n": 1}, {"do": "pause"}, {"n": 2}]');
CALL idle('c08');

-- # Stopped with discard: what was read with it is not handled, and the actor is gone
CALL deliver('stop', '[{"n": 1}, {"do": "stop"}, {"n": 2}]');
CALL idle('c08');

-- # The whole type paused
CALL deliver('pause type', '[{"n": 1}, {"do": "pause type"}, {"n": 2}]');
CALL idle('c08');
SELECT actor_key, state FROM djactor.actor WHERE actor_type = 'c08' ORDER BY 1;
SELECT actor_key, payload FROM djactor.message WHERE actor_type = 'c08' ORDER BY id;
SELECT actor_key, payload, reason FROM djactor.dead_letter WHERE actor_type = 'c08' ORDER BY id;

SELECT djactor.drop_actor_type('c08', true);
DELETE FROM djactor.dead_letter WHERE actor_type = 'c08';
DROP FUNCTION c08;
DROP SEQUENCE ran;
DROP PROCEDURE deliver;
