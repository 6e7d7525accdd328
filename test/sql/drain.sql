--
-- drain(): handles mail here and now, in the caller's transaction: for tests that never commit.
-- Section 2 (test), section 3 points 2, 3, 9, 11 and 12.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
CREATE TABLE written (n int);
CREATE FUNCTION work(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO written VALUES ((message ->> 'n')::int);
	IF message ? 'sleep' THEN
		PERFORM pg_sleep((message ->> 'sleep')::float8);
	END IF;
	IF message ? 'fail' THEN
		RAISE EXCEPTION USING MESSAGE = 'failing', ERRCODE = message ->> 'fail';
	END IF;
	IF message ? 'pass on' THEN
		PERFORM djactor.send('drain', 'next', jsonb_build_object('n', (message -> 'n')::int + 100));
	END IF;
	RETURN collect(state, message -> 'n');
END $$;
SELECT djactor.define_actor_type('drain', 'work', max_attempts => 2);

-- # Nothing to do
SELECT djactor.drain();

-- # What this transaction has sent is handled in it, also what the turns themselves send, and a rollback undoes all
BEGIN;
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES
	('drain', 'd', '{"n": 1}'), ('drain', 'd', '{"n": 2, "pass on": true}'), ('drain', 'e', '{"n": 3}');
SELECT djactor.drain();
SELECT actor_key, state, turns FROM djactor.actor WHERE actor_type = 'drain' ORDER BY 1;
SELECT array_agg(n ORDER BY n) AS written FROM written;
SELECT count(*) AS waiting FROM djactor.message WHERE actor_type = 'drain';
SELECT djactor.drain();
ROLLBACK;
SELECT (SELECT count(*) FROM djactor.actor WHERE actor_type = 'drain') AS actors,
	(SELECT count(*) FROM written) AS written, (SELECT count(*) FROM djactor.message WHERE actor_type = 'drain') AS waiting;

-- # Committed, it is as if workers had done it
BEGIN;
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('drain', 'd', '{"n": 4}');
SELECT djactor.drain();
COMMIT;
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('drain', 'd', '{"n": 5}');
CALL idle('drain');
SELECT actor_key, state, turns FROM djactor.actor WHERE actor_type = 'drain' ORDER BY 1;

-- # A savepoint rolled back takes its turns with it; the mail can be handled again
BEGIN;
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('drain', 'd', '{"n": 6}'), ('drain', 'f', '{"n": 7}');
SAVEPOINT s;
SELECT djactor.drain();
ROLLBACK TO s;
SELECT actor_key, state FROM djactor.actor WHERE actor_type = 'drain' ORDER BY 1;
SELECT djactor.drain();
SELECT actor_key, state FROM djactor.actor WHERE actor_type = 'drain' ORDER BY 1;
ROLLBACK;

-- # max: so many and no more, the highest priority first within an actor
BEGIN;
INSERT INTO djactor.message (actor_type, actor_key, payload, priority)
SELECT 'drain', 'max', jsonb_build_object('n', i), i % 3 FROM generate_series(1, 6) i;
SELECT djactor.drain(max => 0);
SELECT djactor.drain(max => 4);
SELECT state FROM djactor.actor WHERE actor_type = 'drain' AND actor_key = 'max';
SELECT djactor.drain(2);
SELECT djactor.drain(2);
SELECT state FROM djactor.actor WHERE actor_type = 'drain' AND actor_key = 'max';
ROLLBACK;

-- # It handles more than fits into a batch
BEGIN;
INSERT INTO djactor.message (actor_type, actor_key, payload) SELECT 'drain', (i % 3)::text, jsonb_build_object('n', i) FROM generate_series(1, 5000) i;
SELECT djactor.drain();
SELECT actor_key, turns FROM djactor.actor WHERE actor_type = 'drain' AND actor_key IN ('0', '1', '2') ORDER BY 1;
ROLLBACK;

-- # Only what is due: neither delayed nor expired mail
BEGIN;
INSERT INTO djactor.message (actor_type, actor_key, payload, deliver_at, expires_at) VALUES
	('drain', 'due', '{"n": 1}', now() + '1 h', NULL),
	('drain', 'due', '{"n": 2}', now() - '1 h'::interval, NULL),
	('drain', 'due', '{"n": 3}', NULL, now() - '1 h'::interval);
SELECT djactor.drain();
SELECT state FROM djactor.actor WHERE actor_type = 'drain' AND actor_key = 'due';
SELECT payload, reason FROM djactor.dead_letter WHERE actor_type = 'drain';
SELECT payload FROM djactor.message WHERE actor_type = 'drain';
ROLLBACK;

-- # on_error => 'raise' (the default): the handler's error is the caller's
BEGIN;
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('drain', 'fail', '{"n": 1}'), ('drain', 'fail', '{"n": 2, "fail": "DJ123"}');
CALL fails('SELECT djactor.drain()');
SELECT count(*) AS written FROM written WHERE n < 4;
SELECT count(*) AS waiting FROM djactor.message WHERE actor_type = 'drain';
SELECT djactor.self() IS NULL AS no_turn_is_left_open;
ROLLBACK;

-- # on_error => 'retry': the type's policy is followed
BEGIN;
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES
	('drain', 'fail', '{"n": 1}'), ('drain', 'fail', '{"n": 2, "fail": "DJ123"}'), ('drain', 'fail', '{"n": 3}'), ('drain', 'other', '{"n": 4}');
SELECT djactor.drain(on_error => 'retry');
SELECT actor_key, state, turns, failures FROM djactor.actor WHERE actor_type = 'drain' AND actor_key <> 'd' ORDER BY 1;
SELECT payload, attempts, retry_at > clock_timestamp() AS later, last_error FROM djactor.message WHERE actor_type = 'drain' ORDER BY id;
SELECT array_agg(n ORDER BY n) AS written FROM written WHERE n <= 4;
ROLLBACK;
SELECT djactor.define_actor_type('drain.once', 'work', max_attempts => 1);
BEGIN;
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('drain.once', 'o', '{"n": 1, "fail": "42P01"}'), ('drain.once', 'o', '{"n": 2}');
SELECT djactor.drain(on_error => 'retry');
SELECT state FROM djactor.actor WHERE actor_type = 'drain.once';
SELECT payload, reason, sqlstate FROM djactor.dead_letter WHERE actor_type = 'drain.once';
ROLLBACK;

-- # until: also what falls due while a turn runs that comes to nothing
BEGIN;
INSERT INTO djactor.message (actor_type, actor_key, payload, deliver_at) VALUES
	('drain', 'slow', '{"n": 1, "sleep": 0.05, "fail": "DJ123"}', NULL), ('drain', 'soon', '{"n": 2}', clock_timestamp() + '20 ms');
SELECT djactor.drain(on_error => 'retry', until => clock_timestamp() + '100 ms');
SELECT actor_key, state FROM djactor.actor WHERE actor_type = 'drain' AND actor_key = 'soon';
ROLLBACK;

-- # A statement that is cancelled ends, whatever becomes of failing turns
BEGIN;
INSERT INTO djactor.message (actor_type, actor_key, payload) SELECT 'drain', 'slow ' || g, '{"n": 1, "sleep": 0.3}' FROM generate_series(1, 10) g;
SET LOCAL statement_timeout = '500 ms';
\set VERBOSITY sqlstate
SELECT djactor.drain(on_error => 'retry');
\set VERBOSITY default
ROLLBACK;
-- # ... and may be caught by who has called it, whose own work of before is undone
BEGIN;
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('drain', 'slow', '{"n": 1, "sleep": 60}');
SET LOCAL statement_timeout = '300 ms';
DO $$
BEGIN
	BEGIN
		INSERT INTO written VALUES (-1);
		PERFORM djactor.drain(on_error => 'retry');
	EXCEPTION WHEN query_canceled THEN
		INSERT INTO written VALUES (-2);
	END;
END $$;
SELECT n FROM written WHERE n < 0;
ROLLBACK;

-- # However many fail at first: what is due is tried
SELECT djactor.define_actor_type('drain.skip', 'work', retry_order => 'skip', backoff => '1 h', breaker_failures => NULL);
BEGIN;
INSERT INTO djactor.message (actor_type, actor_key, payload) SELECT 'drain.skip', 'a', jsonb_build_object('n', g) || CASE WHEN g <= 1200 THEN '{"fail": "DJ123"}' ELSE '{}' END::jsonb FROM generate_series(1, 1203) g;
SELECT djactor.drain(on_error => 'retry');
SELECT state FROM djactor.actor WHERE actor_type = 'drain.skip';
ROLLBACK;

-- # Turns see self() and message(), and send with sender and cause
CREATE FUNCTION introduce(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	RETURN to_jsonb(djactor.self()) || jsonb_build_object('id', (djactor.message()).id IS NOT NULL);
END $$;
SELECT djactor.define_actor_type('drain.self', 'introduce');
BEGIN;
SELECT djactor.send('drain.self', 's') > 0 AS sent;
SELECT djactor.drain();
SELECT state FROM djactor.actor WHERE actor_type = 'drain.self';
ROLLBACK;

-- # Only one type, or one actor of it; the rest waits
BEGIN;
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES
	('drain', 'o', '{"n": 1, "pass on": true}'), ('drain', 'p', '{"n": 2}'), ('drain.self', 'o', '{}'), ('drain', 'o', '{"n": 3}');
SELECT djactor.drain(only_type => 'drain', only_key => 'q');
SELECT djactor.drain(1, only_type => 'drain', only_key => 'o');
SELECT djactor.drain(only_type => 'drain', only_key => 'o');
SELECT actor_type, actor_key, payload FROM djactor.message ORDER BY id;
SELECT djactor.drain(only_type => 'drain.self');
SELECT actor_type, actor_key, payload FROM djactor.message ORDER BY id;
SELECT djactor.drain();
ROLLBACK;
SELECT djactor.drain(only_type => 'drain.none');
SELECT djactor.drain(only_key => 'o');

-- # In REPEATABLE READ too, as long as nobody else interferes
BEGIN ISOLATION LEVEL REPEATABLE READ;
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('drain', 'rr', '{"n": 1}'), ('drain', 'rr', '{"n": 2}');
SELECT djactor.drain();
SELECT state FROM djactor.actor WHERE actor_type = 'drain' AND actor_key = 'rr';
ROLLBACK;

SELECT count(djactor.drop_actor_type(name, true)) AS dropped FROM djactor.actor_type WHERE name LIKE 'drain%';
DROP TABLE written;
DROP FUNCTION work, introduce;
