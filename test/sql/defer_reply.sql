--
-- Deferred replies: the answer comes in a later turn, and there is exactly one, whatever happens meanwhile.
-- Section 2 (defer_reply, reply), section 3 points 17, 18 and 23.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
\i :tests/sql/include/ask.sql
SELECT djactor.define_actor_type('defer', 'act', max_attempts => 2, backoff => '1 ms'), djactor.define_actor_type('defer.other', 'act', max_attempts => 1);
-- defers: an ask that is left open; answers: another message, which answers it
CREATE FUNCTION defers(name text, expires_at timestamptz DEFAULT NULL) RETURNS void LANGUAGE sql AS $$
	SELECT put(name, 'defer', 'a', '{"do": "SELECT djactor.defer_reply() = (djactor.message()).id"}', expires_at => expires_at) $$;
CREATE FUNCTION answers(actor_type text, actor_key text, name text, call text DEFAULT 'reply(''"later"'', %s)') RETURNS bigint LANGUAGE sql AS $$
	SELECT djactor.send(actor_type, actor_key, jsonb_build_object('do', format('SELECT djactor.' || call, id_of(name)))) $$;

-- # defer_reply() returns the id of the message; the turn counts, its own reply does not, and nothing is answered yet
SELECT defers('one'), put('with reply', 'defer', 'a', '{"do": "SELECT djactor.defer_reply() * 0", "reply": "too soon"}');
CALL idle('defer');
SELECT handled('defer', 'a');
SELECT name, aside FROM waiting ORDER BY id_of(name);
SELECT * FROM answer;
-- # An open ask is no mail: the mailbox is empty, and later messages are handled
SELECT count(*) FROM djactor.mailbox WHERE actor_type = 'defer';

-- # Answered by a later turn of the same actor, by another actor, of another type
SELECT answers('defer', 'a', 'one') > 0, answers('defer.other', 'b', 'with reply', 'reply_error(''"too late"'', %s)') > 0;
CALL idle('defer'); CALL idle('defer.other');
SELECT * FROM answer ORDER BY id_of(name);
SELECT * FROM waiting;
-- # A second answer does nothing
SELECT answers('defer', 'a', 'one', 'reply(''"again"'', %s)') > 0, answers('defer.other', 'b', 'one', 'reply_error(''"again"'', %s)') > 0;
CALL idle('defer'); CALL idle('defer.other');
SELECT * FROM answer WHERE name = 'one';
SELECT count(*) AS dead FROM djactor.dead_letter WHERE actor_type LIKE 'defer%';
TRUNCATE sent;

-- # In one batch: deferred, answered by the next turn, and again by the one after
SELECT djactor.pause('defer');
SELECT defers('batch');
SELECT answers('defer', 'a', 'batch', 'reply(''1'', %s)') > 0, answers('defer', 'b', 'batch', 'reply(''2'', %s)') > 0;
SELECT djactor.resume('defer');
CALL idle('defer');
SELECT count(*) AS answers, min(payload::text) IN ('1', '2') AS one_of_them FROM answer;
TRUNCATE sent;

-- # A turn that answers and fails has not answered
BEGIN;
SELECT defers('open');
SELECT answers('defer.other', 'b', 'open', 'reply(''1'', %s), 1 / 0') > 0;
SELECT djactor.drain(on_error => 'retry', until => now() + '1 min') > 0;
SELECT * FROM answer;
SELECT aside FROM waiting;
SELECT answers('defer.other', 'b', 'open', 'reply(''2'', %s)') > 0;
SELECT djactor.drain() > 0;
SELECT * FROM answer;
ROLLBACK;
-- # Nor has one that caught its error
BEGIN;
SELECT defers('open');
SELECT put('other', 'defer.other', 'b', jsonb_build_object('do', format($$DO 'BEGIN
		PERFORM djactor.reply(''1'', %s); RAISE ''caught'';
	EXCEPTION WHEN raise_exception THEN END'; SELECT NULL$$, id_of('open'))));
SELECT djactor.drain() > 0;
SELECT * FROM answer;
SELECT name, aside FROM waiting;
ROLLBACK;

-- # It expires
BEGIN;
SELECT defers('expires', now() + interval '1 min'), defers('expires later', now() + interval '1 h');
SELECT djactor.drain() > 0;
SELECT name, aside FROM waiting ORDER BY 1;
SELECT djactor.drain(until => now() + '2 min');
SELECT * FROM answer;
-- # and is not answered any more then
SELECT answers('defer', 'a', 'expires') > 0, answers('defer', 'a', 'expires later') > 0;
SELECT djactor.drain() > 0;
SELECT * FROM answer ORDER BY 1;
ROLLBACK;
-- # likewise by the workers' clock
SELECT defers('expires soon', clock_timestamp() + interval '100 ms');
SELECT defers('open');
CALL wait_until($$EXISTS (SELECT FROM answer WHERE name = 'expires soon')$$);
CALL idle('defer');
SELECT name, error ->> 'reason' AS reason FROM answer;
SELECT name, aside FROM waiting;

-- # It is cancelled
SELECT djactor.cancel(id_of('open')), djactor.cancel(id_of('open'));
SELECT * FROM answer WHERE name = 'open';
TRUNCATE sent;

-- # Its actor stops: in a later turn, in the same turn, or by an operator
BEGIN;
SELECT defers('open'), put('stops', 'defer', 'a', '{"do": "SELECT djactor.stop()"}');
SELECT djactor.drain() > 0;
SELECT * FROM answer ORDER BY id_of(name);
ROLLBACK;
BEGIN;
SELECT put('both', 'defer', 'fresh', '{"do": "SELECT djactor.defer_reply() * 0, djactor.stop()"}');
SELECT djactor.drain() > 0;
SELECT * FROM answer;
SELECT * FROM waiting;
SELECT count(*) AS actors FROM djactor.actor WHERE actor_key = 'fresh';
ROLLBACK;
BEGIN;
SELECT defers('open');
SELECT djactor.drain() > 0;
SELECT djactor.stop_actor('defer', 'a');
SELECT * FROM answer;
SELECT * FROM waiting;
ROLLBACK;

-- # Only actors of a role that may act for the type's owner answer; who may not is told so
CREATE ROLE regress_dja_answers LOGIN;
GRANT CREATE ON SCHEMA public TO regress_dja_answers;
SELECT djactor.define_actor_type('defer.foreign', 'act', max_attempts => 1, owner => 'regress_dja_answers');
SELECT defers('open');
CALL idle('defer');
SELECT answers('defer.foreign', 'f', 'open', 'reply(''"forged"'', %s)') > 0, answers('defer.foreign', 'f', 'open', 'reply_error(''"forged"'', %s)') > 0;
CALL idle('defer.foreign');
SELECT sqlstate, replace(regexp_replace(error, '\d+', 'N'), current_user, 'the owner') AS error FROM djactor.dead_letter WHERE actor_type = 'defer.foreign';
SELECT * FROM answer;
-- # and the ask is still open
SELECT answers('defer', 'a', 'open') > 0;
CALL idle('defer');
SELECT * FROM answer;

SELECT djactor.drop_actor_type(name, true) FROM djactor.actor_type WHERE name LIKE 'defer%';
REVOKE CREATE ON SCHEMA public FROM regress_dja_answers;
DROP ROLE regress_dja_answers;
DROP FUNCTION defers, answers;
\i :tests/sql/include/ask_end.sql
