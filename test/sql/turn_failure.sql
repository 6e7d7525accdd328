--
-- A turn that fails: what is written down about it, and what is not.
-- Section 2 (handlers: NULL is an error), section 3 points 1, 11 and 13.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
CREATE FUNCTION troubled(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	CASE message ->> 'do'
		WHEN 'raise' THEN
			RAISE EXCEPTION USING MESSAGE = 'out of coffee', DETAIL = 'The can is empty.', HINT = 'Buy more.', ERRCODE = 'CF001';
		WHEN 'divide' THEN
			PERFORM 1 / (message -> 'by')::int;
		WHEN 'null' THEN
			RETURN NULL;
		ELSE
			RETURN collect(state, message);
	END CASE;
	RETURN state;
END $$;
SELECT djactor.define_actor_type('failure', 'troubled', max_attempts => 1);

-- # A first turn that fails leaves no actor
SELECT djactor.send('failure', 'never', '{"do": "raise"}') > 0 AS sent;
CALL idle('failure');
SELECT count(*) FROM djactor.actor WHERE actor_type = 'failure' AND actor_key = 'never';
SELECT count(*) FROM djactor.actor_identity WHERE actor_type = 'failure' AND actor_key = 'never';

-- # The dead letter has the message as it was sent, and the error with SQLSTATE, detail, hint and context
SELECT djactor.send('failure', 'late', '{"do": "fine"}') > 0 AS sent;
CALL idle('failure');
SELECT djactor.send('failure', 'late', '{"do": "raise"}', priority => 4, headers => '{"user": "ann"}') AS id \gset
CALL idle('failure');
\x on
SELECT id = :id AS same_id, actor_type, actor_key, payload, headers, priority, deliver_at, expires_at,
	sender_type, sender_key, cause_id, attempts, retry_at, last_error, reason, sqlstate, error,
	replace(context, 'message ' || :id, 'message (its id)') AS context, failed_at >= sent_at AS failed_later
FROM djactor.dead_letter WHERE actor_type = 'failure' AND actor_key = 'late';

-- # The actor keeps its state, counts the failure and remembers the error
SELECT state, turns, failures, last_error, status FROM djactor.actor WHERE actor_type = 'failure' AND actor_key = 'late';
\x off

-- # NULL is an error, with a hint
SELECT djactor.send('failure', 'null', '{"do": "null"}') > 0 AS sent;
CALL idle('failure');
SELECT sqlstate, error FROM djactor.dead_letter WHERE actor_type = 'failure' AND actor_key = 'null';

-- # One failing message does not touch its neighbours of the same batch
SELECT djactor.pause('failure');
INSERT INTO djactor.message (actor_type, actor_key, payload)
SELECT 'failure', 'neighbour ' || i / 10, jsonb_build_object('do', CASE WHEN i % 10 = 5 THEN 'divide' ELSE 'fine' END, 'by', 0, 'i', i)
FROM generate_series(0, 39) i;
SELECT djactor.resume('failure');
CALL idle('failure');
SELECT actor_key, turns, failures, jsonb_path_query_array(state, '$[*].i') AS handled
FROM djactor.actor WHERE actor_type = 'failure' AND actor_key LIKE 'neighbour%' ORDER BY 1;
SELECT actor_key, payload -> 'i' AS i, attempts, sqlstate, error
FROM djactor.dead_letter WHERE actor_type = 'failure' AND actor_key LIKE 'neighbour%' ORDER BY 1;

-- # A dead letter is discarded by DELETE
DELETE FROM djactor.dead_letter WHERE actor_type = 'failure' AND actor_key = 'null';
SELECT count(*) FROM djactor.dead_letter WHERE actor_type = 'failure' AND actor_key = 'null';

DELETE FROM djactor.dead_letter WHERE actor_type = 'failure';
SELECT djactor.drop_actor_type('failure', true);
DROP FUNCTION troubled;
