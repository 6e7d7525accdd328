--
-- Asks: what the answer is when a turn ends, and that there is exactly one.
-- Section 2 (reply, reply_error, djactor.result), section 3 points 11 and 18.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
\i :tests/sql/include/ask.sql
CREATE FUNCTION act_jsonb(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT (act(state, message)).state $$;
CREATE FUNCTION act_void(state jsonb, message jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF message ? 'do' THEN
		EXECUTE message ->> 'do';
	END IF;
END $$;
SELECT djactor.define_actor_type('ask', 'act', max_attempts => 3, backoff => '1 ms', breaker_failures => NULL);
SELECT djactor.define_actor_type('ask.jsonb', 'act_jsonb'), djactor.define_actor_type('ask.void', 'act_void');

-- # The reply is what the handler returns as such; any JSON value is one, JSON null included
SELECT put('object', 'ask', 'a', '{"reply": {"x": 1}}'), put('number', 'ask', 'a', '{"reply": 7}'), put('null', 'ask', 'a', '{"reply": null}'),
	put('large', 'ask', 'a', jsonb_build_object('reply', repeat('x', 100000)));
-- # A turn that gives none answers JSON null, whatever kind of handler it has
SELECT put('none', 'ask', 'a'), put('jsonb', 'ask.jsonb', 'a'), put('void', 'ask.void', 'a');
-- # reply() in the turn
SELECT put('reply()', 'ask', 'a', '{"do": "SELECT djactor.reply(''{\"by\": \"reply()\"}'')"}'),
	put('reply() from jsonb', 'ask.jsonb', 'a', '{"do": "SELECT djactor.reply(''1'')"}'),
	put('reply() from void', 'ask.void', 'a', '{"do": "SELECT djactor.reply(''2'')"}'),
	put('reply(NULL)', 'ask', 'a', '{"do": "SELECT djactor.reply(NULL)"}'),
	put('by its own id', 'ask', 'a', '{"do": "SELECT djactor.reply(''3'', (djactor.message()).id)"}');
-- # reply_error(): an error of the handler's own, which is handled all the same
SELECT put('reply_error()', 'ask', 'a', '{"do": "SELECT djactor.reply_error(''{\"code\": 404}'')"}'),
	put('reply_error(NULL)', 'ask', 'a', '{"do": "SELECT djactor.reply_error(NULL)"}');
-- # The first answer counts, the second does nothing
SELECT put('first', 'ask', 'a', '{"do": "SELECT djactor.reply(''1''), djactor.reply(''2''), djactor.reply_error(''3'')", "reply": 4}'),
	put('first an error', 'ask', 'a', '{"do": "SELECT djactor.reply_error(''1''), djactor.reply(''2'')", "reply": 3}'),
	put('then deferred', 'ask', 'a', '{"do": "SELECT djactor.reply(''1''), djactor.defer_reply() * 0"}'),
	put('first deferred', 'ask', 'a', '{"do": "SELECT djactor.defer_reply() * 0, djactor.reply(''1'')"}');
-- # What a handler has caught has not answered
SELECT put('caught', 'ask', 'a', jsonb_build_object('do', $$DO 'BEGIN
		PERFORM djactor.reply(''"not this"''); RAISE ''caught'';
	EXCEPTION WHEN raise_exception THEN PERFORM djactor.reply(''"but this"''); END'; SELECT NULL$$)),
	put('caught, then nothing', 'ask', 'a', jsonb_build_object('do', $$DO 'BEGIN
		PERFORM djactor.reply(''"not this"''); PERFORM djactor.defer_reply(); RAISE ''caught'';
	EXCEPTION WHEN raise_exception THEN END'; SELECT NULL$$, 'reply', 'but this')),
	put('in a block', 'ask', 'a', jsonb_build_object('do', $$DO 'BEGIN
		BEGIN PERFORM djactor.reply(''"this"''); EXCEPTION WHEN raise_exception THEN END;
		PERFORM djactor.reply(''"not this"'');
	END'; SELECT NULL$$, 'reply', 'nor this'));
CALL idle('ask'); CALL idle('ask.jsonb'); CALL idle('ask.void');
SELECT name, CASE WHEN length(payload::text) > 1000 THEN to_jsonb(md5(payload #>> '{}') = md5(repeat('x', 100000))) ELSE payload END AS payload, error
	FROM answer ORDER BY (SELECT id FROM sent WHERE sent.name = answer.name);
SELECT count(*) AS asked, (SELECT count(*) FROM answer) AS answered, (SELECT count(*) FROM waiting) AS waiting FROM sent;
DELETE FROM sent;

-- # A failed attempt has answered nothing; the one that succeeds does
CREATE SEQUENCE attempt;
SELECT put('retried', 'ask', 'r', '{"do": "SELECT djactor.reply(to_jsonb(nextval(''attempt''))), 1 / (currval(''attempt'') / 3)"}');
CALL idle('ask');
SELECT * FROM answer;
DELETE FROM sent;

-- # Nobody asked: nothing happens, no row, no error
SELECT put('not asked', 'ask', 'a', '{"do": "SELECT djactor.reply(''1''), djactor.reply_error(''2''), djactor.defer_reply() * 0", "reply": 3}', wants_reply => false);
SELECT put('to nobody', 'ask', 'a', '{"do": "SELECT djactor.reply(''1'', 281474976710655), djactor.reply(''1'', -1)"}', wants_reply => false);
CALL idle('ask');
SELECT * FROM answer;
SELECT count(*) AS dead FROM djactor.dead_letter WHERE actor_type LIKE 'ask%';
SELECT * FROM waiting;
DELETE FROM sent;

-- # An ask that waits in a mailbox cannot be answered in advance
BEGIN;
SELECT put('early', 'ask', 'p1', '{"reply": "its own"}', deliver_at => now() + '1 min');
SELECT put('other', 'ask', 'p2', jsonb_build_object('do', format('SELECT djactor.reply(''"early"'', %s)', id_of('early'))));
SELECT djactor.drain(until => now() + '2 min');
SELECT * FROM answer ORDER BY 1;
ROLLBACK;

-- # Stashed, it is asked still: the answer comes when it is handled in the end
BEGIN;
SELECT put('stashed', 'ask', 's', $${"do": "SELECT CASE WHEN (djactor.self()).turns = 0 THEN djactor.stash() END", "reply": "handled"}$$);
SELECT djactor.drain();
SELECT * FROM answer;
SELECT put('go on', 'ask', 's', '{"do": "SELECT djactor.unstash_all()"}', wants_reply => false);
SELECT djactor.drain();
SELECT * FROM answer;
ROLLBACK;

-- # Answered and then stashed, it keeps its answer: the first one counts
BEGIN;
SELECT put('answered', 'ask', 's', $${"do": "SELECT djactor.reply('1'), CASE WHEN (djactor.self()).turns = 0 THEN djactor.stash() END", "reply": 2}$$);
SELECT djactor.drain();
SELECT * FROM answer;
SELECT put('go on', 'ask', 's', '{"do": "SELECT djactor.unstash_all()"}', wants_reply => false);
SELECT djactor.drain();
SELECT * FROM answer;
SELECT * FROM waiting;
ROLLBACK;

-- # Outside a turn
CALL fails('SELECT djactor.reply(''1'')');
CALL fails('SELECT djactor.reply(''1'', 1)');
CALL fails('SELECT djactor.reply_error(''1'')');
CALL fails('SELECT djactor.defer_reply()');

-- # The row of an answer
SELECT put('row', 'ask', 'a', '{"reply": 1}');
CALL idle('ask');
SELECT r.payload, r.error IS NULL AS no_error, r.expires_at - r.created_at >= current_setting('djactor.reply_retention')::interval AS kept
	FROM djactor.reply r WHERE r.message_id = id_of('row');
-- # It can be deleted, not changed
CALL fails('UPDATE djactor.reply SET payload = ''2''');
DELETE FROM djactor.reply WHERE message_id = id_of('row');

SELECT djactor.drop_actor_type('ask', true), djactor.drop_actor_type('ask.jsonb', true), djactor.drop_actor_type('ask.void', true);
DROP SEQUENCE attempt;
DROP FUNCTION act_jsonb, act_void;
\i :tests/sql/include/ask_end.sql
