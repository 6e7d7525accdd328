--
-- Breaking a turn off: cancel(id, running => true).
-- Section 3 points 3, 6, 12 and 18. (Races: test/specs/cancel_running.spec; what handlers may do against it: test/t/083_cancel_running.pl)
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
\i :tests/sql/include/ask.sql
SELECT djactor.define_actor_type('running', 'act', max_attempts => 1, breaker_failures => 1), djactor.define_actor_type('running.paused', 'act'), djactor.pause('running.paused');
CREATE TABLE done (what text);
CREATE FUNCTION runs(name text) RETURNS boolean LANGUAGE sql AS $$ SELECT EXISTS (SELECT FROM djactor.worker WHERE message_id = id_of(name)) $$;

-- # Waiting, running, gone
SELECT put('waits', 'running.paused', 'a');
SELECT djactor.cancel(id_of('waits'), running => true), djactor.cancel(id_of('waits'), running => true), djactor.cancel(-1, true), djactor.cancel(NULL, true), djactor.cancel(1, NULL);
SELECT put('before', 'running', 'a', '{"n": "before"}');
CALL idle('running');
SELECT put('long', 'running', 'a', '{"do": "INSERT INTO done VALUES (''long''); SELECT pg_sleep(300)"}'), put('next', 'running', 'a', '{"n": "next"}');
CALL wait_until('runs(''long'')');
SELECT djactor.cancel(id_of('long'), running => true);
CALL idle('running');
-- its asker has an error; the state is that of before and after; nothing of it is left, and nothing is charged
SELECT name, error FROM answer WHERE name = 'long';
SELECT handled('running', 'a');
SELECT * FROM done;
SELECT failures, last_error FROM djactor.actor WHERE actor_type = 'running';
SELECT paused FROM djactor.actor_type WHERE name = 'running';
SELECT count(*) AS dead FROM djactor.dead_letter WHERE actor_type = 'running';
SELECT failed FROM djactor.stat WHERE actor_type = 'running';
SELECT djactor.outcome(id_of('long'));

-- # Without running it takes what waits, as cancel(id) does
SELECT put('waits too', 'running.paused', 'a');
SELECT djactor.cancel(id_of('waits too'), running => false), djactor.cancel(id_of('waits too'), false);

-- # Those of its batch run again without it; also under savepoints
CREATE FUNCTION batch(name text, count int) RETURNS void LANGUAGE sql AS $$
	SELECT djactor.pause('running');
	SELECT put(name || ' ' || i, 'running', name, jsonb_build_object('n', i)) FROM generate_series(1, count) i;
	SELECT put(name || ' long', 'running', name, jsonb_build_object('do', 'SELECT pg_sleep(300)'));
	SELECT put(name || ' last', 'running', name, '{"n": "last"}');
	SELECT djactor.resume('running');
$$;
SELECT batch('mates', 5);
CALL wait_until('runs(''mates long'')');
SELECT djactor.cancel(id_of('mates long'), true);
CALL idle('running');
SELECT string_agg(h->>'n', ' ') FROM handled('running', 'mates') h;
SELECT error->>'reason' AS reason FROM answer WHERE name = 'mates long';

-- # Not committed, it is none: the turn runs again, and no attempt is charged
SELECT put('again', 'running', 'again', '{"do": "SELECT pg_sleep(0.5)", "reply": "handled"}');
CALL wait_until('runs(''again'')');
BEGIN;
SELECT djactor.cancel(id_of('again'), true);
ROLLBACK;
SELECT djactor.wait_reply(id_of('again'), '1 min');

-- # In a turn: refused. Nor is its own message cancelled
SELECT put('refused', 'running', 'b', '{"do": "SELECT djactor.cancel(1, true)"}');
CALL wait_until('EXISTS (SELECT FROM answer WHERE name = ''refused'')');
SELECT error->>'error' FROM answer WHERE name = 'refused';

-- # Others' mail, read-only transactions
SELECT put('theirs', 'running.paused', 'a');
CREATE ROLE running_stranger;
GRANT SELECT ON sent TO running_stranger;
GRANT USAGE ON SCHEMA djactor TO running_stranger;
SET ROLE running_stranger;
CALL refused('SELECT djactor.cancel((SELECT id FROM sent WHERE name = ''theirs''), true)');
RESET ROLE;
REVOKE ALL ON sent FROM running_stranger;
REVOKE USAGE ON SCHEMA djactor FROM running_stranger;
DROP ROLE running_stranger;
BEGIN READ ONLY;
SELECT djactor.cancel(1, true);
ROLLBACK;

SELECT djactor.resume('running');
SELECT djactor.drop_actor_type('running', true), djactor.drop_actor_type('running.paused', true);
DELETE FROM djactor.dead_letter WHERE actor_type = 'running';
DROP FUNCTION runs, batch;
DROP TABLE done;
\i :tests/sql/include/ask_end.sql
