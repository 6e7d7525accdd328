--
-- Timers: durable, named, replaceable, never early; what a cancel ends.
-- Section 2 (set_timer, cancel_timer), section 3 point 16. Where drain() moves the clock nothing is waited for.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
\i :tests/sql/include/obey.sql
SELECT djactor.define_actor_type('timer', 'obey', max_attempts => 2, backoff => '1 ms');

-- # A timer is a row with its name until it has fired; its message has kind, meta and payload of the timer; never early
CREATE FUNCTION alarm(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	m djactor.message := djactor.message();
BEGIN
	IF m.kind = 'user' THEN
		PERFORM djactor.set_timer('alarm', '200 ms', '{"wake": "up"}');
		RETURN jsonb_build_object('set', clock_timestamp());
	END IF;
	RETURN jsonb_build_object('kind', m.kind, 'payload', message, 'name', m.meta->>'name', 'missed', m.meta->'missed',
		'due as set', (m.meta->>'due_at')::timestamptz BETWEEN (state->>'set')::timestamptz AND (state->>'set')::timestamptz + interval '200 ms',
		'early', clock_timestamp() < (m.meta->>'due_at')::timestamptz,
		'from itself', m.sender_type = m.actor_type AND m.sender_key = m.actor_key);
END $$;
SELECT djactor.define_actor_type('timer.alarm', 'alarm');
SELECT djactor.send('timer.alarm', 'a') > 0 AS sent;
CALL idle('timer.alarm');
SELECT actor_type, actor_key, name, every, payload FROM djactor.timer;
CALL wait_until($$(SELECT turns FROM djactor.actor WHERE actor_type = 'timer.alarm') = 2$$);
SELECT jsonb_pretty(state) FROM djactor.actor WHERE actor_type = 'timer.alarm';
SELECT count(*) AS timers FROM djactor.timer;
SELECT count(*) AS waiting FROM djactor.message WHERE actor_type = 'timer.alarm';

-- # A pending timer is idle
SELECT tell('timer', 'idle', 'set', $$SELECT djactor.set_timer('t', '1 h')$$);
CALL idle('timer');
SELECT kind, deliver_at > now() AS later FROM djactor.message WHERE actor_type = 'timer';
SELECT djactor.stop_actor('timer', 'idle');
DELETE FROM told;

-- # drain(until) runs delays, timers and retries in due order, with the clock of each
BEGIN;
CREATE FUNCTION clocked(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	m djactor.message := djactor.message();
BEGIN
	INSERT INTO told (actor_key, word, turn) VALUES (m.actor_key, coalesce(m.meta->>'name', message #>> '{}'),
		round(extract(epoch FROM djactor.now() - (SELECT at FROM start)) / 60));
	IF message = '"set"' THEN
		PERFORM djactor.set_timer('in 20', '20 min'), djactor.set_timer('in 40', at => (SELECT at FROM start) + '40 min'),
			djactor.set_timer('each 25', every => '25 min');
	ELSIF message = '"fails once"' AND m.attempts = 0 THEN
		RAISE EXCEPTION 'not yet';
	END IF;
	RETURN state;
END $$;
SELECT djactor.define_actor_type('timer.clocked', 'clocked', backoff => '10 min', backoff_max => '10 min');
CREATE TABLE start AS SELECT clock_timestamp() AS at;
INSERT INTO djactor.message (actor_type, actor_key, payload, deliver_at) SELECT 'timer.clocked', key, payload::jsonb, at + delay::interval
	FROM start, (VALUES ('x', '"set"', NULL), ('y', '"after 30"', '30 min'), ('z', '"fails once"', '22 min'), ('x', '"after 5"', '5 min'), ('y', '"after 61"', '61 min')) v(key, payload, delay);
SELECT djactor.drain(until => (SELECT at + interval '1 h' FROM start), on_error => 'retry');
SELECT turn AS minute, actor_key, word FROM told ORDER BY serial;
SELECT abs(extract(epoch FROM djactor.now() - clock_timestamp())) < 60 AS clock_is_back;
SELECT name, round(extract(epoch FROM due_at - at) / 60) AS due FROM djactor.timer, start WHERE actor_type = 'timer.clocked';
ROLLBACK;

-- # handler_timeout runs by the real clock, however drain() moves its own
BEGIN;
CREATE FUNCTION slow(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep((message #>> '{}')::float8); RETURN state; END $$;
SELECT djactor.define_actor_type('timer.slow', 'slow', handler_timeout => '2 s');
INSERT INTO djactor.message (actor_type, actor_key, payload, deliver_at) SELECT 'timer.slow', i::text, '0.7', clock_timestamp() + interval '100 ms' FROM generate_series(1, 4) i;
SELECT djactor.drain(until => clock_timestamp() + '1 s');
INSERT INTO djactor.message (actor_type, actor_key, payload, deliver_at) VALUES ('timer.slow', 'runaway', '20', now() + interval '1 day');
DO $$ BEGIN PERFORM djactor.drain(until => now() + '2 days'); EXCEPTION WHEN query_canceled THEN RAISE INFO '%', SQLSTATE; END $$;
ROLLBACK;

-- # Setting a timer of the same name replaces it, payload, time and period
BEGIN;
SELECT tell('timer', 'replace', 'set', $$SELECT djactor.set_timer('t', '1 h', '"first"')$$);
SELECT tell('timer', 'replace', 'again', $$SELECT djactor.set_timer('t', '2 h', '"second"', every => '3 h')$$);
SELECT djactor.drain();
SELECT name, due_at - now() > '1 h' AS later, every, payload FROM djactor.timer WHERE actor_key = 'replace';
SELECT count(*) AS firings FROM djactor.message WHERE actor_key = 'replace';
SELECT djactor.drain(until => now() + '6 h');
SELECT * FROM heard();
ROLLBACK;

-- # Each actor has names of its own
BEGIN;
SELECT tell('timer', key, 'set', $$SELECT djactor.set_timer('t', '1 h')$$) FROM unnest('{p,q}'::text[]) key;
SELECT tell('timer', 'p', 'cancel', $$SELECT djactor.cancel_timer('t')$$);
SELECT djactor.drain(until => now() + '2 h');
SELECT * FROM heard();
ROLLBACK;

-- # cancel_timer() tells whether there was one; the firing is gone with it
BEGIN;
SELECT tell('timer', 'cancel', 'set', $$SELECT djactor.set_timer('t', '1 h')$$,
	$$INSERT INTO told (word) SELECT djactor.cancel_timer('t')$$, $$INSERT INTO told (word) SELECT djactor.cancel_timer('t')$$);
SELECT djactor.drain();
SELECT word FROM told ORDER BY serial;
SELECT count(*) AS firings FROM djactor.message WHERE actor_key = 'cancel';
ROLLBACK;

-- # A cancel reaches a firing that is in the mailbox already, or in the memory of the same batch, and so does a replacement
SELECT tell('timer', key, 'exists') FROM unnest('{c1,c2,c3,c4}'::text[]) key;
SELECT tell('timer', key, 'set', $$SELECT djactor.set_timer('t', '1 ms')$$, $$SELECT djactor.pause('timer', (djactor.self()).actor_key)$$)
	FROM unnest('{c1,c2,c3,c4}'::text[]) key;
CALL wait_until($$(SELECT count(*) FROM djactor.message WHERE kind = 'timer' AND released AND actor_type = 'timer') = 4$$);
SELECT djactor.send('timer', 'c1', '{"n": "cancel", "do": ["SELECT djactor.cancel_timer(''t'')"]}', priority => 1) > 0 AS sent;
SELECT djactor.send('timer', 'c2', '{"n": "replace", "do": ["SELECT djactor.set_timer(''t'', ''1 h'')"]}', priority => 1) > 0 AS sent;
SELECT djactor.send('timer', 'c3', '{"n": "rolled back", "do": ["DO $$BEGIN PERFORM djactor.cancel_timer(''t''); RAISE division_by_zero; EXCEPTION WHEN OTHERS THEN NULL; END$$"]}', priority => 1) > 0 AS sent;
SELECT djactor.send('timer', 'c4', '{"n": "fails", "do": ["SELECT djactor.cancel_timer(''t'')", "SELECT 1/0"]}', priority => 1) > 0 AS sent;
BEGIN;
SELECT djactor.resume('timer', 'c1'), djactor.resume('timer', 'c2');
SELECT djactor.drain();
SELECT * FROM heard();
ROLLBACK;
BEGIN;
SELECT djactor.resume('timer', key) FROM unnest('{c1,c2,c3,c4}'::text[]) key;
COMMIT;
CALL idle('timer');
SELECT * FROM heard();
SELECT actor_key, name FROM djactor.timer WHERE actor_key LIKE 'c_';
SELECT actor_key, payload->'n' AS dead, reason FROM djactor.dead_letter WHERE actor_type = 'timer' AND actor_key LIKE 'c_';

-- # What a failed turn or a rolled-back subtransaction has set is not set
BEGIN;
SELECT tell('timer', 'failed', 'fails', $$SELECT djactor.set_timer('t', '1 h')$$, $$SELECT 1/0$$);
SELECT tell('timer', 'failed', 'rolled back', $q$DO $$BEGIN PERFORM djactor.set_timer('t', '1 h'); RAISE division_by_zero; EXCEPTION WHEN OTHERS THEN NULL; END$$$q$);
SELECT djactor.drain(until => now() + '3 h', on_error => 'retry');
SELECT * FROM heard();
SELECT count(*) AS timers FROM djactor.timer WHERE actor_key = 'failed';
ROLLBACK;

-- # cancel() of a firing by its id ends its timer; every, too
SELECT tell('timer', 'by id', 'set', $$SELECT djactor.set_timer('t', '1 h', every => '1 h')$$);
CALL idle('timer');
SELECT djactor.cancel(id) FROM djactor.message WHERE actor_key = 'by id';
SELECT count(*) AS timers FROM djactor.timer WHERE actor_key = 'by id';

-- # stop() removes timers, a firing in the mailbox too; so does dropping the type
BEGIN;
SELECT tell('timer', 'stopped', 'set', $$SELECT djactor.set_timer('t', '1 h'), djactor.set_timer('u', every => '1 ms')$$);
SELECT tell('timer', 'stopped', 'stop', $$SELECT djactor.stop()$$);
SELECT djactor.drain(until => now() + '3 h');
SELECT * FROM heard();
SELECT count(*) AS timers FROM djactor.timer WHERE actor_key = 'stopped';
ROLLBACK;
BEGIN;
SELECT tell('timer', 'u', 'set and stop', $$SELECT djactor.set_timer('t', '1 h')$$, $$SELECT djactor.stop()$$);
SELECT djactor.drain(until => now() + '3 h');
SELECT * FROM heard();
SELECT djactor.define_actor_type('timer.dropped', 'obey');
SELECT tell('timer.dropped', 'd', 'set', $$SELECT djactor.set_timer('t', '1 h')$$);
SELECT djactor.drain();
SELECT djactor.drop_actor_type('timer.dropped', true);
SELECT count(*) AS timers FROM djactor.timer WHERE actor_type = 'timer.dropped';
ROLLBACK;

-- # A failed firing is retried, with what it missed counted; given up, the timer is over and the dead letter can be redriven
CREATE TABLE switch (broken boolean);
INSERT INTO switch VALUES (true);
CREATE FUNCTION fragile(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	m djactor.message := djactor.message();
BEGIN
	IF m.kind = 'user' THEN
		PERFORM djactor.set_timer('once', '1 ms', '"payload"');
	ELSIF (SELECT broken FROM switch) THEN
		RAISE EXCEPTION 'the switch is broken';
	ELSE
		RETURN jsonb_build_object('payload', message, 'attempts', m.attempts, 'name', m.meta->'name', 'missed', m.meta->'missed', 'due', m.meta ? 'due_at');
	END IF;
	RETURN state;
END $$;
SELECT djactor.define_actor_type('timer.fragile', 'fragile', max_attempts => 1);
SELECT djactor.define_actor_type('timer.fragile2', 'fragile', max_attempts => 3, backoff => '1 ms');
SELECT djactor.send(type, 'f') > 0 AS sent FROM unnest('{timer.fragile,timer.fragile2}'::text[]) type;
CALL wait_until($$(SELECT count(*) FROM djactor.dead_letter WHERE actor_type LIKE 'timer.fragile%') = 2$$);
SELECT actor_type, kind, meta->'name' AS name, meta->'missed' AS missed, meta ? 'due_at' AS due, attempts, reason, error FROM djactor.dead_letter WHERE actor_type LIKE 'timer.fragile%' ORDER BY 1;
SELECT count(*) AS timers FROM djactor.timer WHERE actor_type LIKE 'timer.fragile%';
UPDATE switch SET broken = false;
SELECT djactor.redrive(id) > 0 AS redriven FROM djactor.dead_letter WHERE actor_type LIKE 'timer.fragile%';
CALL idle('timer.fragile');
CALL idle('timer.fragile2');
SELECT actor_type, state FROM djactor.actor WHERE actor_type LIKE 'timer.fragile%' ORDER BY 1;

-- # Outside a turn there is nobody to set a timer for
CALL fails($$SELECT djactor.set_timer('t', '1 h')$$);
CALL fails($$SELECT djactor.cancel_timer('t')$$);

-- # What cannot be set
CREATE FUNCTION wrong(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN CALL fails(message #>> '{}'); RETURN state; END $$;
BEGIN;
SELECT djactor.define_actor_type('timer.wrong', 'wrong');
INSERT INTO djactor.message (actor_type, actor_key, payload) SELECT 'timer.wrong', 'w', to_jsonb('SELECT djactor.set_timer(' || arguments || ')')
	FROM unnest(ARRAY[$$'t'$$, $$'t', '-1 s'$$, $$'t', '1 s', at => now()$$, $$'t', every => '0'$$, $$'t', every => '-1 h'$$, $$'t', every => '0.9 ms'$$,
		$$'t', every => '1 day -1 hour'$$, $$'t', every => '1100 years'$$, $$'t', every => '2562047788 h', at => now()$$, $$'t', at => 'infinity'$$, $$'t', at => '-infinity'$$, $$'', '1 s'$$, $$repeat('x', 1000), '1 s'$$, $$NULL, '1 s'$$, $$'t', '1 s', NULL$$]) WITH ORDINALITY a(arguments, i) ORDER BY i;
SELECT djactor.drain();
SELECT count(*) AS timers FROM djactor.timer WHERE actor_type = 'timer.wrong';
ROLLBACK;

-- # Rows are written by set_timer() alone
CALL fails($$INSERT INTO djactor.timer (actor_type, actor_key, name, due_at, payload, message_id) VALUES ('timer', 'x', 't', now(), '{}', 1)$$);
CALL fails($$DELETE FROM djactor.timer$$);

SELECT count(djactor.drop_actor_type(name, true)) AS dropped FROM djactor.actor_type WHERE name LIKE 'timer%';
DROP FUNCTION alarm, fragile, wrong, obey, tell, heard;
DROP TABLE told, switch;
