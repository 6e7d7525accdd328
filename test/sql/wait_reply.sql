--
-- Waiting for an answer, from outside of actors: wait_reply() and CALL ask().
-- Section 2 (ask), section 3 points 17, 18 and 26.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
\i :tests/sql/include/ask.sql
SELECT djactor.define_actor_type('wait', 'act', max_attempts => 1, breaker_failures => NULL), djactor.define_actor_type('wait.paused', 'act');
SELECT djactor.pause('wait.paused');
-- waits: as wait_reply(), and shows an error that carries no id
CREATE FUNCTION waits(name text, timeout interval DEFAULT '1 min') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
	message text;
BEGIN
	RETURN djactor.wait_reply(id_of(name), timeout);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, message = MESSAGE_TEXT;
	RETURN format('%s: %s (%s)', SQLSTATE, replace(message, id_of(name)::text, 'N'), detail);
END $$;

-- # It returns the answer, once it is there, as often as one asks
SELECT put('answered', 'wait', 'a', '{"reply": {"x": 1}}');
SELECT waits('answered'), waits('answered'), waits('answered', '0');
SELECT put('null', 'wait', 'a');
SELECT waits('null'), djactor.wait_reply(id_of('null')) IS NULL AS is_sql_null;
-- # also one that is answered while it waits
SELECT put('slow', 'wait', 'a', '{"do": "SELECT pg_sleep(0.2)", "reply": "slow"}');
SELECT waits('slow');
SELECT put('deferred', 'wait', 'a', '{"do": "SELECT djactor.defer_reply() * 0"}');
-- (b could be faster than a: an answer to what is not open yet is none)
CALL wait_until($$(SELECT aside = 'deferred' FROM waiting WHERE name = 'deferred')$$);
SELECT djactor.send('wait', 'b', jsonb_build_object('do', format('SELECT pg_sleep(0.2), djactor.reply(''"at last"'', %s)', id_of('deferred')))) > 0 AS sent;
SELECT waits('deferred');

-- # JA001: no answer in time. It is unknown what will become of the message, and a late answer is still there for who asks again
SELECT put('late', 'wait.paused', 'a', '{"reply": "late"}');
SELECT waits('late', '0'), waits('late', '10 ms');
SELECT djactor.resume('wait.paused');
SELECT waits('late');
SELECT djactor.pause('wait.paused');
-- # so is what there never was
INSERT INTO sent VALUES ('no message', 281474976710655);
SELECT waits('no message', '1 ms');

-- # JA002: answered by an error, which is the DETAIL, as jsonb
SELECT put('failed', 'wait', 'a', '{"do": "SELECT 1 / 0"}'), put('error', 'wait', 'a', '{"do": "SELECT djactor.reply_error(''{\"code\": 404}'')"}');
SELECT waits('failed'), waits('error');
DO $$
DECLARE
	detail text;
BEGIN
	PERFORM djactor.wait_reply(id_of('failed'));
EXCEPTION WHEN SQLSTATE 'JA002' THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RAISE INFO '%', detail::jsonb ->> 'reason';
END $$;

-- # A message that wants no reply: said at once
SELECT put('no ask', 'wait.paused', 'a', wants_reply => false);
SELECT waits('no ask');
CALL fails('SELECT djactor.wait_reply(NULL)');
CALL fails('SELECT djactor.wait_reply(1, NULL)');
CALL fails('SELECT djactor.wait_reply(1, ''-1 s'')');

-- # In the transaction that has sent the message: refused at once, since no worker sees it
BEGIN;
SELECT put('mine', 'wait', 'mine', '{"reply": "drained"}');
SELECT waits('mine', '1 h');
SAVEPOINT s;
SELECT put('mine, too', 'wait', 'mine', '{"reply": "drained, too"}'), put('open', 'wait', 'mine', '{"do": "SELECT djactor.defer_reply() * 0"}');
RELEASE SAVEPOINT s;
SELECT waits('mine, too', '1 h');
-- # but after drain() the reply is there
SELECT djactor.drain() > 0 AS drained;
SELECT waits('mine', '1 h'), waits('mine, too', '0');
-- # unless it is deferred
SELECT waits('open', '1 h');
-- # or an error is
SELECT put('cancelled', 'wait', 'mine', '{}');
SELECT djactor.cancel(id_of('cancelled'));
SELECT waits('cancelled', '1 h');
ROLLBACK;

-- # Whatever the isolation level, the answer is found that was committed later
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) AS answers FROM answer WHERE name = 'other session';
SELECT put('unseen', 'wait', 'a');
ROLLBACK;
SELECT put('seen', 'wait.paused', 'seen', '{"reply": "seen"}');
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SELECT waits('late'), waits('seen', '0');
ROLLBACK;

-- # In a turn nobody waits for anybody
SELECT put('in a turn', 'wait', 'a', jsonb_build_object('do', format('SELECT djactor.wait_reply(%s)', id_of('late')))),
	put('ask in a turn', 'wait', 'a', $${"do": "DO 'DECLARE reply jsonb; BEGIN CALL djactor.ask(''wait'', ''a'', reply => reply); END'"}$$);
SELECT waits('in a turn'), waits('ask in a turn');

-- # The channel djactor_reply carries the ids, one notification for many
LISTEN djactor_reply;
BEGIN;
SELECT put('told 1', 'wait', 't', '{"reply": 1}'), put('told 2', 'wait', 't', '{"do": "SELECT djactor.reply(''2'')"}'), put('told nobody', 'wait', 't', wants_reply => false),
	put('told error', 'wait', 't', '{"do": "SELECT djactor.reply_error(''3'')"}'),
	put('told nothing', 'wait', 't', jsonb_build_object('do', $$DO 'BEGIN
		PERFORM djactor.reply(''"not this"''); PERFORM djactor.defer_reply(); RAISE ''caught'';
	EXCEPTION WHEN raise_exception THEN PERFORM djactor.defer_reply(); END'; SELECT NULL$$));
SELECT djactor.drain() > 0 AS drained;
SELECT string_agg(id::text, ',' ORDER BY id) AS ids FROM sent WHERE name IN ('told 1', 'told 2', 'told error') \gset
\setenv IDS :ids
\o |sed -e "s/\"$IDS\"/those of the three/" -e 's/PID [0-9]*/PID/'
COMMIT;
\o
UNLISTEN djactor_reply;

-- # CALL ask(): sends, commits, waits
CALL djactor.ask('wait', 'c', '{"reply": {"x": 1}}');
CALL djactor.ask('wait', 'c');
CALL djactor.ask('wait', 'c', jsonb_build_object('reply', repeat('x', 20)), '1 min');
-- # The message expires with the timeout: nobody runs what nobody waits for any more
\set VERBOSITY sqlstate
CALL djactor.ask('wait.paused', 'expires', '{"reply": 1}', '10 ms');
CALL djactor.ask('wait', 'c', '{"do": "SELECT 1 / 0"}', '1 min');
\set VERBOSITY default
INSERT INTO sent SELECT 'expires', id FROM djactor.message WHERE actor_type = 'wait.paused' AND actor_key = 'expires';
SELECT djactor.resume('wait.paused');
SELECT waits('expires');
SELECT count(*) AS was_run FROM djactor.actor WHERE actor_type = 'wait.paused' AND turns > 0 AND actor_key = 'expires';
DO $$
DECLARE
	reply jsonb;
BEGIN
	CALL djactor.ask('wait', 'c', '{"reply": "in a DO block"}', '1 min', reply);
	RAISE INFO '%', reply;
	CALL djactor.ask('wait', 'c', '{"reply": "and another"}', reply => reply);
	RAISE INFO '%', reply;
END $$;
CREATE PROCEDURE asks(INOUT reply jsonb DEFAULT NULL) LANGUAGE plpgsql AS $$
BEGIN
	CALL djactor.ask('wait', 'c', jsonb_build_object('reply', repeat('x', 100000)), '1 min', reply);
	reply := to_jsonb(length(reply #>> '{}'));
END $$;
CALL asks();
-- # What the caller has written before is committed with it
CREATE TABLE written (n int);
DO $$
DECLARE
	reply jsonb;
BEGIN
	INSERT INTO written VALUES (1);
	CALL djactor.ask('wait', 'c', '{"do": "SELECT count(*) FROM written", "reply": null}', '1 min', reply);
	INSERT INTO written VALUES (2);
	ROLLBACK;
END $$;
SELECT * FROM written;
SELECT h ->> 'seen' AS seen FROM handled('wait', 'c') h WHERE h ? 'seen';

-- # It cannot commit inside a transaction block, nor in a function, nor under an exception handler
CREATE FUNCTION in_a_function() RETURNS void LANGUAGE plpgsql AS $$ DECLARE reply jsonb; BEGIN CALL djactor.ask('wait', 'c', reply => reply); END $$;
CALL fails('CALL djactor.ask(''wait'', ''c'')');
CALL fails('SELECT in_a_function()');
DO $$ DECLARE reply jsonb; BEGIN CALL djactor.ask('wait', 'never', reply => reply); EXCEPTION WHEN invalid_transaction_termination THEN RAISE INFO '%', SQLERRM; END $$;
BEGIN;
CALL djactor.ask('wait', 'never');
ROLLBACK;
SELECT count(*) AS never FROM djactor.actor WHERE actor_type = 'wait' AND actor_key = 'never';
-- # and refuses what send() refuses
\set VERBOSITY terse
CALL djactor.ask('wait.unknown', 'c');
CALL djactor.ask('wait', '');
CALL djactor.ask('wait', 'c', '{}', NULL);
CALL djactor.ask('wait', 'c', '{}', '-1 s');
\set VERBOSITY sqlstate
CALL djactor.ask('wait', NULL, '{}');
\set VERBOSITY default

-- # An id that no message has is waited for like any other
SELECT djactor.wait_reply(0, '10 ms');

SELECT djactor.drop_actor_type(name, true) FROM djactor.actor_type WHERE name LIKE 'wait%';
DROP TABLE written;
DROP PROCEDURE asks;
DROP FUNCTION waits, in_a_function;
\i :tests/sql/include/ask_end.sql
