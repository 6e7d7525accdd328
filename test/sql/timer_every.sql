--
-- Periodic timers: missed periods become one firing with their count.
-- Section 3 point 16.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
CREATE TABLE firing (serial serial PRIMARY KEY, actor_key text, due_at timestamptz, missed int, early boolean);
CREATE FUNCTION beat(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	m djactor.message := djactor.message();
BEGIN
	IF m.kind = 'user' AND message ? 'every' THEN
		PERFORM djactor.set_timer('beat', (message->>'after')::interval, coalesce(message->'payload', '{}'), (message->>'every')::interval, (message->>'at')::timestamptz);
		IF message ? 'pause' THEN
			PERFORM djactor.pause((djactor.self()).actor_type);
		END IF;
	ELSIF m.kind = 'timer' THEN
		INSERT INTO firing (actor_key, due_at, missed, early)
			VALUES (m.actor_key, (m.meta->>'due_at')::timestamptz, (m.meta->>'missed')::int, djactor.now() < (m.meta->>'due_at')::timestamptz);
		PERFORM pg_sleep((message->>'sleep')::float8);
		IF message ? 'fails' THEN
			RAISE EXCEPTION 'beat fails';
		ELSIF (SELECT count(*) FROM firing WHERE actor_key = m.actor_key) >= (message->>'times')::int THEN
			PERFORM djactor.cancel_timer('beat');
		END IF;
	END IF;
	RETURN state;
END $$;
SELECT djactor.define_actor_type('every', 'beat', max_attempts => 1, breaker_failures => NULL);

-- # First after one period, or after, or at; then each period from there on
BEGIN;
SELECT djactor.send('every', 'e', '{"every": "10 min"}') > 0 AS sent, djactor.send('every', 'after', '{"every": "10 min", "after": "1 min"}') > 0 AS sent,
	djactor.send('every', 'at', jsonb_build_object('every', '10 min', 'at', now() + interval '3 min')) > 0 AS sent;
SELECT djactor.drain(until => now() + '25 min');
SELECT actor_key, array_agg(round(extract(epoch FROM due_at - now()) / 60) ORDER BY serial) AS minutes, max(missed) AS missed, bool_or(early) AS early FROM firing GROUP BY 1 ORDER BY 1;
ROLLBACK;

-- # Days and months are those of the calendar, in the type's time zone
SELECT djactor.define_actor_type('every.berlin', 'beat', max_attempts => 1, settings => '{"TimeZone": "Europe/Berlin"}');
BEGIN;
SET LOCAL timezone = 'Europe/Berlin';
SELECT djactor.send('every.berlin', 'month', '{"every": "1 mon", "at": "2100-01-15 12:00"}') > 0 AS sent, djactor.send('every.berlin', 'day', '{"every": "1 day", "at": "2100-03-27 12:00"}') > 0 AS sent;
SELECT djactor.drain(until => '2100-05-01');
SELECT actor_key, due_at::timestamp, missed FROM firing WHERE actor_key = 'month' OR due_at < '2100-03-31' ORDER BY actor_key, serial;
ROLLBACK;

-- # What was missed is one firing with the count: one day and some minutes, every hour; every month
BEGIN;
SELECT djactor.send('every', 'hour', jsonb_build_object('every', '1 h', 'at', now() - interval '24 h 10 min')) > 0 AS sent,
	djactor.send('every', 'month', jsonb_build_object('every', '1 mon', 'at', now() - interval '1 year 1 day')) > 0 AS sent,
	djactor.send('every', 'day', jsonb_build_object('every', '1 day', 'at', now() - interval '10 days 1 h')) > 0 AS sent;
SELECT djactor.drain();
SELECT actor_key, missed FROM firing ORDER BY 1;
SELECT actor_key, due_at > now() AS next_is_to_come, due_at <= now() + every AS and_soon FROM djactor.timer WHERE actor_type = 'every' ORDER BY 1;
ROLLBACK;

-- # The same with workers, after a pause of the type
SELECT djactor.send('every', 'paused', '{"every": "20 ms", "pause": true, "payload": {"times": 2}}') > 0 AS sent;
CALL wait_until($$(SELECT clock_timestamp() > due_at + interval '200 ms' FROM djactor.timer WHERE actor_key = 'paused')$$);
SELECT djactor.resume('every');
CALL wait_until($$(SELECT count(*) FROM firing WHERE actor_key = 'paused') = 2$$);
SELECT bool_or(early) AS early FROM firing;

-- # Never a period too few or too many: also what passes while a turn runs is counted by the next firing
SELECT djactor.send('every', 'slow', '{"every": "50 ms", "payload": {"times": 4, "sleep": 0.17}}') > 0 AS sent;
CALL wait_until($$(SELECT count(*) FROM firing WHERE actor_key = 'slow') = 4$$);
CALL idle('every');
SELECT actor_key, bool_or(next IS NOT NULL AND next <> due_at + (missed + 1) * period) AS wrong, max(missed) > 0 AS some_were_missed
FROM (SELECT *, lead(due_at) OVER (PARTITION BY actor_key ORDER BY serial) AS next, CASE actor_key WHEN 'slow' THEN interval '50 ms' ELSE interval '20 ms' END AS period FROM firing) f
GROUP BY 1 ORDER BY 1;
SELECT count(*) AS timers FROM djactor.timer WHERE actor_type = 'every';

-- # A firing that is given up does not end the timer
SELECT djactor.send('every', 'fails', '{"every": "20 ms", "payload": {"fails": true}}') > 0 AS sent;
CALL wait_until($$(SELECT count(*) FROM djactor.dead_letter WHERE actor_key = 'fails') >= 3$$);
SELECT djactor.send('every', 'fails', '{"every": "1 h"}') > 0 AS sent;
CALL idle('every');
SELECT name, every, payload FROM djactor.timer WHERE actor_key = 'fails';
SELECT count(*) AS firings_to_come FROM djactor.message WHERE actor_key = 'fails' AND kind = 'timer';
SELECT DISTINCT reason, kind, meta->>'name' AS name FROM djactor.dead_letter WHERE actor_key = 'fails';

-- # Neither retry_order nor the number of firings makes more than one timer message wait
SELECT actor_key, count(*) FROM djactor.message WHERE actor_type = 'every' GROUP BY 1;

SELECT djactor.drop_actor_type('every', true);
DROP FUNCTION beat;
DROP TABLE firing;
