--
-- Waiting for many answers at once: wait_replies().
-- Section 3 points 17, 18 and 32. (That CALL holds nothing while it waits: test/specs/contract-32-waiting.spec)
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
\i :tests/sql/include/ask.sql
SELECT djactor.define_actor_type('many', 'act', max_attempts => 1, breaker_failures => NULL), djactor.define_actor_type('many.paused', 'act'), djactor.pause('many.paused');
CREATE FUNCTION ids(VARIADIC names text[]) RETURNS bigint[] LANGUAGE sql AS $$ SELECT array_agg(id_of(n) ORDER BY o) FROM unnest(names) WITH ORDINALITY u (n, o) $$;

-- # A row for each answer, in the order of the ids; an error is one; also what is answered while it waits
SELECT put('first', 'many', 'a', '{"do": "SELECT pg_sleep(0.2)", "reply": {"x": 1}}'), put('null', 'many', 'b'), put('failed', 'many', 'c', '{"do": "SELECT djactor.reject(''no'')"}'),
	put('last', 'many', 'd', '{"do": "SELECT pg_sleep(0.1)", "reply": "last"}');
SELECT name, reply, error FROM djactor.wait_replies(ids('last', 'first', 'null', 'failed'), '1 min') WITH ORDINALITY w JOIN sent ON id = message_id ORDER BY ordinality;
-- again, and by name; an id that is given twice has two rows
SELECT name, reply FROM djactor.wait_replies(timeout => '0', ids => ids('null', 'first', 'null')) WITH ORDINALITY w JOIN sent ON id = message_id ORDER BY ordinality;

-- # What is not answered in time has none; what comes after it in the array has
SELECT put('never', 'many.paused', 'a', '{"reply": "late"}');
SELECT name, reply FROM djactor.wait_replies(ids('never', 'first', 'never', 'null'), '100 ms') WITH ORDINALITY w JOIN sent ON id = message_id ORDER BY ordinality;
SELECT count(*) FROM djactor.wait_replies(ids('never') || '{-1,0,281474976710655}', '0');
SELECT count(*) FROM djactor.wait_replies('{}');

-- # CALL commits, and returns them as an array
DO $$
DECLARE
	replies jsonb;
BEGIN
	PERFORM put('in a block', 'many', 'a', '{"reply": "seen after the commit"}');
	CALL djactor.wait_replies(ids('in a block', 'never', 'failed', 'first', 'null'), '300 ms', replies);
	RAISE INFO '%', (SELECT jsonb_agg(r - 'message_id' || jsonb_build_object('name', name) ORDER BY o) FROM jsonb_array_elements(replies) WITH ORDINALITY e (r, o) JOIN sent ON id = (r->'message_id')::bigint);
END $$;
CALL djactor.wait_replies('{}', '1 min', NULL);
CALL djactor.wait_replies(ids('never'), '10 ms', NULL);

-- # A thousand, answered in any order
SELECT count(put('many ' || i, 'many', (i % 10)::text, jsonb_build_object('reply', i), priority => i % 3)) FROM generate_series(1, 1000) i;
SELECT count(*), sum(reply::int), bool_and(name = 'many ' || ordinality) AS in_order
FROM djactor.wait_replies((SELECT array_agg(id_of('many ' || i) ORDER BY i) FROM generate_series(1, 1000) i), '1 min') WITH ORDINALITY w JOIN sent ON id = message_id;

-- # What cannot be waited for is refused at once
SELECT put('no ask', 'many.paused', 'a', wants_reply => false);
\set VERBOSITY terse
SELECT djactor.wait_replies('{1,NULL}'), 1;
SELECT djactor.wait_replies('{{1,2},{3,4}}');
SELECT djactor.wait_replies(NULL);
SELECT djactor.wait_replies('{1}', NULL);
SELECT djactor.wait_replies('{1}', '-1 s');
CALL djactor.wait_replies(NULL, '1 s', NULL);
CALL djactor.wait_replies('{NULL}', '1 s', NULL);
\set VERBOSITY sqlstate
SELECT djactor.wait_replies(ids('never', 'no ask'), '1 h');
BEGIN;
SELECT put('mine', 'many', 'mine', '{"reply": "drained"}');
SAVEPOINT s;
SELECT djactor.wait_replies(ids('never', 'mine'), '1 h');
ROLLBACK TO SAVEPOINT s;
SELECT djactor.drain() > 0 AS drained;
SELECT reply FROM djactor.wait_replies(ids('mine'), '1 h');
CALL djactor.wait_replies(ids('mine'), '1 h', NULL);
ROLLBACK;
SELECT put('inside', 'many', 'inside', '{"do": "SELECT count(*) FROM djactor.wait_replies(''{1}'')"}');
SELECT error->>'sqlstate' AS sqlstate FROM djactor.wait_replies(ids('inside'), '1 min');
\set VERBOSITY default

-- # Who may not read the answers may not wait; row security hides answers
CREATE ROLE many_waiter;
GRANT SELECT ON sent TO many_waiter;
SET ROLE many_waiter;
CALL refused($$SELECT djactor.wait_replies('{1}')$$);
RESET ROLE;
GRANT SELECT ON djactor.reply TO many_waiter;
CREATE POLICY half ON djactor.reply TO many_waiter USING (payload = '"last"');
ALTER TABLE djactor.reply ENABLE ROW LEVEL SECURITY;
SET ROLE many_waiter;
SELECT reply FROM djactor.wait_replies((SELECT array_agg(id) FROM sent WHERE name IN ('first', 'last', 'null')), '10 ms');
RESET ROLE;
ALTER TABLE djactor.reply DISABLE ROW LEVEL SECURITY;
DROP POLICY half ON djactor.reply;
REVOKE ALL ON djactor.reply, sent FROM many_waiter;
DROP ROLE many_waiter;

DROP FUNCTION ids;
SELECT djactor.drop_actor_type('many', true), djactor.drop_actor_type('many.paused', true);
DELETE FROM djactor.dead_letter WHERE actor_type LIKE 'many%';
\i :tests/sql/include/ask_end.sql
