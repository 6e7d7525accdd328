--
-- Delayed messages: never early, and no burden to what comes before them.
-- Section 2 (deliver_at), section 3 point 10.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
CREATE FUNCTION punctual(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF clock_timestamp() < (djactor.message()).deliver_at THEN
		RETURN collect(state, '"early"');
	END IF;
	RETURN collect(state, message);
END $$;
SELECT djactor.define_actor_type('delay', 'punctual');

-- # A delayed message waits, and later ones overtake it; meanwhile the type is idle
SELECT djactor.send('delay', 'd', '"in an hour"', deliver_at => clock_timestamp() + '1 h') > 0 AS sent;
SELECT djactor.send('delay', 'd', '"now"') > 0 AS sent;
CALL idle('delay');
SELECT state FROM djactor.actor WHERE actor_type = 'delay' AND actor_key = 'd';
SELECT payload, attempts FROM djactor.message WHERE actor_type = 'delay';

-- # It comes when its time has come, whatever else is delayed
SELECT djactor.send('delay', 'd', '"soon"', deliver_at => clock_timestamp() + '300 ms') > 0 AS sent;
CALL wait_until($$(SELECT turns FROM djactor.actor WHERE actor_type = 'delay' AND actor_key = 'd') = 2$$);
SELECT state FROM djactor.actor WHERE actor_type = 'delay' AND actor_key = 'd';

-- # Many delays, sent in any order, each at its time
INSERT INTO djactor.message (actor_type, actor_key, payload, deliver_at)
SELECT 'delay', 'many', to_jsonb(i), clock_timestamp() + i * interval '20 ms' FROM generate_series(20, 1, -1) i;
CALL wait_until($$NOT EXISTS (SELECT FROM djactor.message WHERE actor_type = 'delay' AND actor_key = 'many')$$);
SELECT turns, state @> '["early"]' AS early FROM djactor.actor WHERE actor_type = 'delay' AND actor_key = 'many';

-- # A delay of the past is none
SELECT djactor.send('delay', 'past', '"late"', deliver_at => now() - interval '1 day') > 0 AS sent;
SELECT djactor.send('delay', 'past', '"later"', deliver_at => '-infinity') > 0 AS sent;
CALL wait_until($$NOT EXISTS (SELECT FROM djactor.message WHERE actor_type = 'delay' AND actor_key = 'past')$$);
SELECT turns FROM djactor.actor WHERE actor_type = 'delay' AND actor_key = 'past';

-- # A delay without end is never handled, and never in the way
SELECT djactor.send('delay', 'never', '"no"', deliver_at => 'infinity') > 0 AS sent;
SELECT djactor.send('delay', 'never', '"yes"') > 0 AS sent;
CALL idle('delay');
SELECT state FROM djactor.actor WHERE actor_type = 'delay' AND actor_key = 'never';

-- # A delay that ends while the type is paused: nothing is handled before resume(), and nothing is lost
SELECT djactor.define_actor_type('delay.paused', 'collect');
SELECT djactor.pause('delay.paused');
SELECT djactor.send('delay.paused', 'p', '1', deliver_at => clock_timestamp() + '10 ms') > 0 AS sent;
CALL wait_until($$clock_timestamp() > (SELECT deliver_at FROM djactor.message WHERE actor_type = 'delay.paused') + interval '50 ms'$$);
SELECT count(*) AS waiting FROM djactor.message WHERE actor_type = 'delay.paused';
SELECT djactor.resume('delay.paused');
CALL wait_until($$NOT EXISTS (SELECT FROM djactor.message WHERE actor_type = 'delay.paused')$$);
SELECT state FROM djactor.actor WHERE actor_type = 'delay.paused';

SELECT djactor.drop_actor_type('delay', true), djactor.drop_actor_type('delay.paused', true);
DROP FUNCTION punctual;
