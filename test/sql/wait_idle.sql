--
-- wait_idle(): waits until no mail is left that could be handled.
-- Section 2 (operate).
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
CREATE FUNCTION take_time(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_sleep((message ->> 'take')::float);
	IF message ? 'fail' THEN
		RAISE EXCEPTION 'failing';
	END IF;
	RETURN collect(state, message);
END $$;
SELECT djactor.define_actor_type('idle', 'take_time', backoff => '1 h');
SELECT djactor.define_actor_type('idle.other', 'take_time');

-- # At once, where there is nothing
SELECT djactor.wait_idle('0 s', 'idle');
SELECT djactor.wait_idle('0 s', NULL);

-- # True when the last turn has committed
INSERT INTO djactor.message (actor_type, actor_key, payload) SELECT 'idle', i::text, '{"take": 0.01}' FROM generate_series(1, 20) i;
SELECT djactor.wait_idle('1 min', 'idle');
SELECT count(*) AS waiting, (SELECT sum(turns) FROM djactor.actor WHERE actor_type = 'idle') AS turns FROM djactor.message WHERE actor_type = 'idle';

-- # However long it may take
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('idle', 'long', '{"take": 0.1}');
SELECT djactor.wait_idle('178000000 years', 'idle'), djactor.wait_idle('2562047788 hours', 'idle');

-- # False when the time is over
SELECT djactor.send('idle.other', 'slow', '{"take": 2}') > 0 AS sent;
SELECT djactor.wait_idle('20 ms', 'idle.other'), djactor.wait_idle('20 ms');

-- # Of one type, or of all
SELECT djactor.wait_idle('0 s', 'idle');
SELECT djactor.wait_idle('1 min');

-- # Delayed and paused mail is idle
SELECT djactor.send('idle', 'delayed', '{"take": 0}', deliver_at => now() + '1 h') > 0 AS sent;
SELECT djactor.wait_idle('0 s', 'idle');
SELECT djactor.pause('idle.other');
SELECT djactor.send('idle.other', 'paused', '{"take": 0}') > 0 AS sent;
SELECT djactor.wait_idle('0 s', 'idle.other');
SELECT djactor.resume('idle.other');
CALL idle('idle.other');

-- # A message in backoff is not
SELECT djactor.send('idle', 'failing', '{"take": 0, "fail": true}') > 0 AS sent;
CALL wait_until($$EXISTS (SELECT FROM djactor.message WHERE actor_type = 'idle' AND attempts = 1)$$);
SELECT djactor.wait_idle('20 ms', 'idle');
SELECT djactor.pause('idle');
SELECT djactor.wait_idle('20 ms', 'idle');

-- # In the transaction that has sent it could only wait for ever
BEGIN;
SELECT djactor.send('idle.other', 'k', '{"take": 0}') > 0 AS sent;
SELECT djactor.wait_idle('1 s', 'idle.other');
ROLLBACK;

-- # Bad arguments
CALL fails($$SELECT djactor.wait_idle('1 s', 'no such type')$$);
CALL fails($$SELECT djactor.wait_idle('-1 s')$$);
CALL fails($$SELECT djactor.wait_idle(NULL)$$);

SELECT djactor.drop_actor_type('idle', true), djactor.drop_actor_type('idle.other', true);
DROP FUNCTION take_time;
