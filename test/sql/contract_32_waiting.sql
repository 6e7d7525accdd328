--
-- Contract 32: CALL wait_reply() and CALL wait_idle() wait as the functions do, but commit before they wait and hold nothing meanwhile.
-- (That they hold nothing: test/specs/contract-32-waiting.spec. CALL ask(): wait_reply.sql)
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
\i :tests/sql/include/ask.sql
SELECT djactor.define_actor_type('c32', 'act', max_attempts => 1, breaker_failures => NULL), djactor.define_actor_type('c32.paused', 'act'), djactor.pause('c32.paused');
CREATE TABLE written (n int);

-- # The answer, as often as one asks; JSON null is one
SELECT put('answered', 'c32', 'a', '{"reply": {"x": 1}}'), put('null', 'c32', 'a');
CALL djactor.wait_reply(id_of('answered'), '1 min', NULL);
CALL djactor.wait_reply(id_of('answered'), '0', NULL);
CALL djactor.wait_reply(id_of('null'), '1 min', NULL);
CALL djactor.wait_reply(message_id => id_of('answered'), timeout => '1 min', reply => NULL);
-- # also one that comes while it waits, and is long
SELECT put('slow', 'c32', 'a', jsonb_build_object('do', 'SELECT pg_sleep(0.2)', 'reply', repeat('long ', 20000)));
DO $$
DECLARE
	reply jsonb;
BEGIN
	CALL djactor.wait_reply(id_of('slow'), '1 min', reply);
	RAISE INFO '%', length(reply #>> '{}');
	CALL djactor.wait_reply(id_of('answered'), '1 min', reply);
	RAISE INFO '%', reply;
END $$;
-- # An error, or no answer in time, is raised
\set VERBOSITY sqlstate
SELECT put('failed', 'c32', 'a', '{"do": "SELECT 1 / 0"}'), put('never', 'c32.paused', 'a');
CALL djactor.wait_reply(id_of('failed'), '1 min', NULL);
CALL djactor.wait_reply(id_of('never'), '1200 ms', NULL);
CALL djactor.wait_reply(id_of('never'), '0', NULL);
\set VERBOSITY default
CALL djactor.wait_reply(NULL, '1 s', NULL);
CALL djactor.wait_reply(1, NULL, NULL);
CALL djactor.wait_reply(1, '-1 s', NULL);

-- # True when all is done, false after the timeout
SELECT djactor.send('c32', 'b', '{"do": "SELECT pg_sleep(0.2)"}') > 0 AS sent;
CALL djactor.wait_idle('1 min', 'c32', NULL);
SELECT turns FROM djactor.actor WHERE actor_type = 'c32' AND actor_key = 'b';
CALL djactor.wait_idle('1 min', NULL, NULL);
SELECT djactor.wait_idle(), djactor.wait_idle(actor_type => 'c32');
CALL djactor.wait_idle(timeout => '0', actor_type => 'c32.paused', idle => NULL);
SELECT djactor.send('c32', 'b', '{"do": "SELECT pg_sleep(2)"}') > 0 AS sent;
CALL djactor.wait_idle('100 ms', 'c32', NULL);
CALL djactor.wait_idle('1 min', 'c32', NULL);
CALL djactor.wait_idle('1 s', 'no such type', NULL);
CALL djactor.wait_idle('-1 s', NULL, NULL);
CALL djactor.wait_idle(NULL, NULL, NULL);

-- # What the session has done before is committed: also what it has sent, so that it can be waited for
DO $$
DECLARE
	reply jsonb;
	name text;
	idle boolean;
BEGIN
	FOR name IN SELECT 'in a block ' || n FROM generate_series(1, 3) n LOOP
		INSERT INTO written VALUES (1);
		PERFORM put(name, 'c32', 'c', '{"reply": "seen"}');
		CALL djactor.wait_reply(id_of(name), '1 min', reply);
		PERFORM djactor.send('c32', 'd');
		CALL djactor.wait_idle('1 min', repeat('c32', 1), idle);
		RAISE INFO '% % %', reply, idle, (SELECT turns FROM djactor.actor WHERE actor_type = 'c32' AND actor_key = 'd');
	END LOOP;
	INSERT INTO written VALUES (2);
	ROLLBACK;
END $$;
SELECT n, count(*) FROM written GROUP BY n;

-- # Where nothing can be committed they are refused, and say what there is instead
BEGIN;
CALL djactor.wait_reply(id_of('answered'), '1 min', NULL);
ROLLBACK;
BEGIN;
CALL djactor.wait_idle('1 min', NULL, NULL);
ROLLBACK;
CALL fails('CALL djactor.wait_reply(1, ''1 s'', NULL)');
CREATE FUNCTION in_a_function() RETURNS void LANGUAGE plpgsql AS $$ DECLARE idle boolean; BEGIN CALL djactor.wait_idle('1 s', NULL, idle); END $$;
CALL fails('SELECT in_a_function()');
DO $$ DECLARE idle boolean; BEGIN CALL djactor.wait_idle('1 s', NULL, idle); EXCEPTION WHEN invalid_transaction_termination THEN RAISE INFO '%', SQLERRM; END $$;
-- # nor in a turn
SELECT put('in a turn', 'c32', 'a', $${"do": "DO 'DECLARE reply jsonb; BEGIN CALL djactor.wait_reply(1, ''1 s'', reply); END'"}$$), put('idle in a turn', 'c32', 'a', $${"do": "DO 'DECLARE idle boolean; BEGIN CALL djactor.wait_idle(''1 s'', NULL, idle); END'"}$$);
CALL idle('c32');
SELECT name, error ->> 'error' AS error FROM answer WHERE name LIKE '%turn' ORDER BY 1;

-- # A session that may only read may wait
SET default_transaction_read_only = on;
CALL djactor.wait_reply(id_of('answered'), '0', NULL);
CALL djactor.wait_idle('1 min', 'c32', NULL);
RESET default_transaction_read_only;

-- # The functions are called as ever
SELECT djactor.wait_reply(id_of('answered')), djactor.wait_reply(id_of('answered'), '0'), djactor.wait_idle('1 min'), djactor.wait_idle('1 min', 'c32'), djactor.wait_idle('1 min', NULL);

SELECT djactor.drop_actor_type(name, true) FROM djactor.actor_type WHERE name LIKE 'c32%';
DROP TABLE written;
DROP FUNCTION in_a_function;
\i :tests/sql/include/ask_end.sql
