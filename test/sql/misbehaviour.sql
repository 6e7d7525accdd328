--
-- What a handler may not do: it fails its own message, with a clear error, and nobody else's.
-- Section 3 points 3, 7, 11, 12 and 21.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
CREATE FUNCTION run_it(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF message = '"COMMIT"' THEN
		COMMIT;
	ELSIF message = '"ROLLBACK"' THEN
		ROLLBACK;
	ELSIF jsonb_typeof(message) = 'string' THEN
		EXECUTE message #>> '{}';
	END IF;
	RETURN collect(state, message);
END $$;
SELECT djactor.define_actor_type('misbehave', 'run_it', max_attempts => 1);
SELECT djactor.define_actor_type('misbehave.sink', 'collect');
SELECT djactor.send('misbehave.sink', 'sink', '0') > 0 AS sent;
CALL idle('misbehave.sink');

-- # Ending the transaction, listening, starting another dispatcher inside a turn
SELECT djactor.pause('misbehave');
INSERT INTO djactor.message (actor_type, actor_key, payload)
SELECT 'misbehave', 'm ' || k, payload
FROM unnest('{COMMIT,ROLLBACK,SAVEPOINT s,LISTEN somewhere,VACUUM,CREATE DATABASE d,SELECT djactor.drain(),SELECT djactor.wait_idle(''1 s'')}'::text[])
	WITH ORDINALITY w (what, k),
	LATERAL (VALUES (1, '1'::jsonb), (2, to_jsonb(what)), (3, '2'::jsonb)) m (i, payload)
ORDER BY k, i;
SELECT djactor.resume('misbehave');
CALL idle('misbehave');
SELECT actor_key, state, turns, failures FROM djactor.actor WHERE actor_type = 'misbehave' ORDER BY 1;
SELECT actor_key, payload, attempts, sqlstate, split_part(error, E'\n', 1) AS error
FROM djactor.dead_letter WHERE actor_type = 'misbehave' ORDER BY 1;

-- # Changing its own actor's row inside the turn
DELETE FROM djactor.dead_letter WHERE actor_type = 'misbehave';
SELECT djactor.send('misbehave', 'self', '1') > 0 AS sent;
CALL idle('misbehave');
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES
	('misbehave', 'self', '"UPDATE djactor.actor SET state = ''[\"by hand\"]'' WHERE actor_type = ''misbehave'' AND actor_key = ''self''"'),
	('misbehave', 'self', '2');
CALL idle('misbehave');
SELECT state, turns FROM djactor.actor WHERE actor_type = 'misbehave' AND actor_key = 'self';
SELECT attempts, sqlstate FROM djactor.dead_letter WHERE actor_type = 'misbehave';

-- # The state of an actor of another type may be changed, and is not lost
SELECT djactor.send('misbehave', 'writer', '"UPDATE djactor.actor SET state = ''[\"by a turn\"]'' WHERE actor_type = ''misbehave.sink''"') > 0 AS sent;
CALL idle('misbehave');
SELECT djactor.send('misbehave.sink', 'sink', '1') > 0 AS sent;
CALL idle('misbehave.sink');
SELECT state FROM djactor.actor WHERE actor_type = 'misbehave.sink';

-- # UNLISTEN * does not make the worker deaf, not even when it sleeps
SELECT djactor.send('misbehave', 'deaf', '"UNLISTEN *"') > 0 AS sent;
CALL idle('misbehave');
SELECT pg_sleep(1.5);
SELECT djactor.send('misbehave', 'deaf', '1') > 0 AS sent;
CALL idle('misbehave');
SELECT state FROM djactor.actor WHERE actor_type = 'misbehave' AND actor_key = 'deaf';

-- # NOTIFY is allowed
SELECT djactor.send('misbehave', 'notify', '"NOTIFY regress_dja"') > 0 AS sent;
CALL idle('misbehave');
SELECT turns FROM djactor.actor WHERE actor_type = 'misbehave' AND actor_key = 'notify';

DELETE FROM djactor.dead_letter WHERE actor_type LIKE 'misbehave%';
SELECT djactor.drop_actor_type('misbehave', true), djactor.drop_actor_type('misbehave.sink', true);
DROP FUNCTION run_it;
