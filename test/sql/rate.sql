--
-- rate: at most so many turns of a type begin in so long a time, by all workers and hosts together. What waits for its
-- turn costs no attempt, is shown in djactor.mailbox, and holds up no other type.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
\i :tests/sql/include/hosted.sql
CREATE TABLE begun (type text, key text, payload jsonb, at timestamptz DEFAULT clock_timestamp());
CREATE FUNCTION begins(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO begun VALUES ((djactor.self()).actor_type, (djactor.self()).actor_key, message);
	IF message = '"fails"' THEN
		RAISE EXCEPTION 'fails';
	END IF;
	RETURN state;
END $$;
-- most(type, period): the most turns in any span of that length. Half of it, since turns are noted a moment after they have begun.
CREATE FUNCTION most(type text, period interval) RETURNS bigint LANGUAGE sql AS $$
	SELECT max(n) FROM (
		SELECT count(*) OVER (ORDER BY at RANGE BETWEEN CURRENT ROW AND period / 2 FOLLOWING) AS n
		FROM begun WHERE begun.type = most.type) s
$$;

-- # What a rate is
CALL fails($$SELECT djactor.define_actor_type('bad', 'begins', rate => '')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'begins', rate => 'fast')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'begins', rate => '100')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'begins', rate => '100/')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'begins', rate => '100/fortnight')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'begins', rate => '100/min more')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'begins', rate => '1.5/s')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'begins', rate => '0/min')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'begins', rate => '-1/min')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'begins', rate => '1000001/s')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'begins', rate => '99999999999999999999/s')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'begins', rate => '1/0 s')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'begins', rate => '1/32 day')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'begins', rate => '1/99999999999999999999 s')$$);
SELECT djactor.define_actor_type('good', 'begins', rate => good) FROM unnest(ARRAY['5/s', '100/min', '1000/h', '1000/hour', '1/day', '10/30s', ' 10 / 30 s ', '1000000/31 day']) good;
SELECT rate FROM djactor.actor_type WHERE name = 'good';

-- for later, so that it has been swept by then; a name of its own, since a sweep may find what another test has left in the index
SELECT djactor.define_actor_type('by_hosts', NULL, hosted => true, rate => '3/hour');

-- # To alter something else keeps it; NULL takes it away
SELECT djactor.alter_actor_type('good', batch_size => 7);
SELECT rate, batch_size FROM djactor.actor_type WHERE name = 'good';
CALL fails($$SELECT djactor.alter_actor_type('good', rate => '0/s')$$);
SELECT djactor.alter_actor_type('good', rate => NULL);
SELECT rate, batch_size FROM djactor.actor_type WHERE name = 'good';

-- # Three an hour: three turns begin, the others wait, whoever they are for
SELECT djactor.define_actor_type('hourly', 'begins', rate => '3/hour');
INSERT INTO djactor.message (actor_type, actor_key, payload) SELECT 'hourly', k, to_jsonb(i) FROM unnest(ARRAY['a', 'b']) k, generate_series(1, 4) i;
CALL wait_until($$(SELECT count(*) = 5 FROM djactor.message WHERE actor_type = 'hourly')$$);
CALL wait_until($$(SELECT count(*) = 2 FROM djactor.mailbox WHERE actor_type = 'hourly' AND waits_for = 'rate')$$);
SELECT count(*) FROM begun WHERE type = 'hourly';
SELECT sum(depth) AS depth, min(waits_until) > now() + interval '50 min' AND max(waits_until) < now() + interval '70 min' AS in_an_hour, sum(put_offs) AS put_offs, min(last_error) AS last_error
	FROM djactor.mailbox WHERE actor_type = 'hourly';

-- # ... no attempt was used up, and mail that comes waits with it
SELECT max(attempts) AS attempts, max(put_offs) AS put_offs, count(retry_at) AS retries FROM djactor.message WHERE actor_type = 'hourly';
SELECT djactor.send('hourly', 'c') > 0 AS sent;
SELECT djactor.wait_idle('300 ms', 'hourly') AS idle;
SELECT count(*) FROM begun WHERE type = 'hourly';
SELECT waits_for FROM djactor.mailbox WHERE actor_type = 'hourly' AND actor_key = 'c';

-- # ... others do not wait
SELECT djactor.define_actor_type('others', 'begins');
SELECT djactor.send('others', 'a') > 0 AS sent;
CALL idle('others');

-- # ... no worker starts for it, and those that are there rest
CALL wait_until($$(SELECT count(*) <= 2 AND bool_and(state = 'idle') FROM djactor.worker)$$);

-- # ... a larger rate lets more begin, a smaller one none, and no rate all
SELECT djactor.alter_actor_type('hourly', rate => '5/hour');
CALL wait_until($$(SELECT count(*) = 5 FROM begun WHERE type = 'hourly')$$);
SELECT djactor.alter_actor_type('hourly', rate => '2/hour');
SELECT djactor.wait_idle('300 ms', 'hourly') AS idle;
SELECT count(*) FROM begun WHERE type = 'hourly';
SELECT djactor.alter_actor_type('hourly', rate => NULL);
CALL idle('hourly');
SELECT count(*) FROM begun WHERE type = 'hourly';

-- # In no span of a second do more begin than a second allows, and waiting ends by itself
SELECT djactor.define_actor_type('fast', 'begins', rate => '5/s');
INSERT INTO djactor.message (actor_type, actor_key) SELECT 'fast', i::text FROM generate_series(1, 16) i;
CALL idle('fast');
SELECT count(*), most('fast', '1 s') <= 5 AS no_more, max(at) - min(at) BETWEEN '2.9 s' AND '20 s' AS in_time FROM begun WHERE type = 'fast';

-- # A rate of many turns is counted in parts of its period
SELECT djactor.define_actor_type('many', 'begins', rate => '300/s');
INSERT INTO djactor.message (actor_type, actor_key) SELECT 'many', (i % 7)::text FROM generate_series(1, 700) i;
CALL idle('many');
SELECT count(*), most('many', '1 s') <= 300 AS no_more, max(at) - min(at) BETWEEN '1.9 s' AND '20 s' AS in_time FROM begun WHERE type = 'many';

-- # A failed attempt is a turn; turns that its batch takes along count once
SELECT djactor.define_actor_type('failing', 'begins', rate => '4/hour', max_attempts => 1, breaker_failures => NULL);
SELECT djactor.pause('failing');
INSERT INTO djactor.message (actor_type, actor_key, payload) SELECT 'failing', k, '"fails"' FROM unnest(ARRAY['b', 'd']) k;
INSERT INTO djactor.message (actor_type, actor_key, payload) SELECT 'failing', k, '"succeeds"' FROM unnest(ARRAY['a', 'c', 'e']) k;
SELECT djactor.resume('failing');
CALL wait_until($$(SELECT count(*) = 1 FROM djactor.message WHERE actor_type = 'failing')$$);
SELECT (SELECT count(*) FROM djactor.dead_letter WHERE actor_type = 'failing') + (SELECT count(*) FROM djactor.actor WHERE actor_type = 'failing') AS ended;
SELECT djactor.drop_actor_type('failing', true);

-- # drain() knows no rates, since it may move the clock
SELECT djactor.define_actor_type('drained', 'begins', rate => '1/hour');
BEGIN;
INSERT INTO djactor.message (actor_type, actor_key) SELECT 'drained', i::text FROM generate_series(1, 5) i;
SELECT djactor.drain();
ROLLBACK;

-- # Hosted: what is handed out counts
SELECT djactor.host_open('{by_hosts}') > 0 AS opened;
SELECT put('by_hosts', 'a', 'a1', 'a2');
SELECT put('by_hosts', 'b', 'b1', 'b2');
SELECT put('by_hosts', 'c', 'c1');
SELECT actor_key, words FROM claims(10, 10);
SELECT actor_key, words FROM claims(10, 10);
SELECT DISTINCT waits_for FROM djactor.mailbox WHERE actor_type = 'by_hosts';

-- # ... what comes back without having begun does not
SELECT djactor.release(ARRAY[token]) FROM taken WHERE word = 'b1';
SELECT actor_key, words FROM claims(10, 10);
SELECT actor_key, words FROM claims(10, 10);
SELECT complete('a1');
SELECT actor_key, words FROM claims(10, 10);

-- # ... nor what a transaction takes that is rolled back
SELECT djactor.alter_actor_type('by_hosts', rate => '4/hour');
BEGIN;
SELECT count(*) FROM claims(10, 10);
ROLLBACK;
SELECT count(*) FROM claims(10, 10);
SELECT count(*) FROM claims(10, 10);
SELECT djactor.host_close();
SELECT djactor.drop_actor_type(name, true) FROM unnest(ARRAY['hourly', 'by_hosts', 'good', 'others', 'fast', 'many', 'drained']) name;
DELETE FROM djactor.dead_letter;
DROP FUNCTION begins, most;
DROP TABLE begun;
\i :tests/sql/include/hosted_end.sql
