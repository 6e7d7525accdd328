--
-- Asks of actors: the answer is a message to the one that asked, of kind reply or error, which nobody else can forge.
-- Section 2 (kind, meta, in_reply_to, headers, trace_id), section 3 points 17 and 18.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
\i :tests/sql/include/ask.sql
-- asker: sends an ask to what its message names; what comes back it keeps as it is
CREATE FUNCTION asker(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	m djactor.message := djactor.message();
BEGIN
	IF m.kind = 'user' AND message ? 'ask' THEN
		PERFORM djactor.send(message ->> 'ask', 'b', message -> 'with', wants_reply => true, priority => 5,
			expires_at => CASE WHEN message ? 'expired' THEN now() END, idempotency_key => message ->> 'once');
		RETURN state;
	END IF;
	RETURN collect(state, jsonb_build_object('kind', m.kind, 'payload', m.payload, 'meta', m.meta, 'from', concat_ws(' ', m.sender_type, m.sender_key),
		'priority', m.priority, 'headers', m.headers, 'wants_reply', m.wants_reply));
END $$;
SELECT djactor.define_actor_type('asker', 'asker'), djactor.define_actor_type('asked', 'act', max_attempts => 2, backoff => '1 ms', breaker_failures => NULL),
	djactor.define_actor_type('asked.full', 'act', mailbox_limit => 1, on_full => 'dead_letter');
CREATE VIEW got AS SELECT actor_key, jsonb_array_elements(state) AS got FROM djactor.actor WHERE actor_type = 'asker' AND state <> '{}';

-- # Each kind of answer
SELECT count(*) AS replies FROM djactor.reply \gset
INSERT INTO djactor.message (actor_type, actor_key, payload, headers) VALUES
	('asker', '1 reply', '{"ask": "asked", "with": {"reply": {"x": 1}}}', '{"tenant": 7}'),
	('asker', '2 none', '{"ask": "asked", "with": {}}', NULL),
	('asker', '3 error', '{"ask": "asked", "with": {"do": "SELECT djactor.reply_error(''{\"code\": 404}'')"}}', NULL),
	('asker', '4 error of a number', '{"ask": "asked", "with": {"do": "SELECT djactor.reply_error(''5'')"}}', NULL),
	('asker', '5 rejected', '{"ask": "asked", "with": {"do": "SELECT djactor.reject(''no'')"}}', '{"tenant": 8}'),
	('asker', '6 failed', '{"ask": "asked", "with": {"do": "SELECT 1 / 0"}}', NULL),
	('asker', '7 expired', '{"ask": "asked", "with": {}, "expired": true}', NULL);
CALL idle('asker'); CALL idle('asked'); CALL idle('asker');
SELECT * FROM got ORDER BY 1;
SELECT count(*) - :replies AS rows_of_reply FROM djactor.reply;

-- # in_reply_to is the ask's id, the trace is that of the first message, cause_id the message whose turn answered
BEGIN;
SELECT djactor.send('asker', 'trace', '{"ask": "asked", "with": {"reply": 1}}', headers => '{"tenant": 9}') > 0 AS sent;
SELECT djactor.drain(1);
SELECT id AS ask, trace_id AS trace FROM djactor.message WHERE actor_type = 'asked' \gset
SELECT djactor.drain(1);
SELECT kind, payload, in_reply_to = :ask AS in_reply_to, trace_id = :'trace' AS same_trace, cause_id = :ask AS cause, headers, sender_type, sender_key FROM djactor.message WHERE actor_type = 'asker';
ROLLBACK;

-- # mailbox_full: the error comes in the asker's own transaction
BEGIN;
SELECT djactor.send('asked.full', 'b') > 0, djactor.send('asker', 'full', '{"ask": "asked.full", "with": {}}') > 0;
SELECT djactor.pause('asked.full');
SELECT djactor.drain() > 0 AS drained;
SELECT * FROM got WHERE actor_key = 'full';
ROLLBACK;

-- # drain() goes on until all is answered, also when a turn has only deferred or expired something
BEGIN;
SELECT djactor.send('asker', 'expired', '{"ask": "asked", "with": {}, "expired": true}') > 0;
SELECT djactor.drain() > 0 AS drained;
SELECT got -> 'meta' ->> 'reason' AS reason FROM got WHERE actor_key = 'expired';
ROLLBACK;
BEGIN;
SELECT djactor.send('asked', 'b', $${"do": "SELECT djactor.defer_reply() * djactor.send('asker', 'told', '\"told\"')"}$$, wants_reply => true) > 0;
SELECT djactor.drain() > 0 AS drained;
SELECT got -> 'payload' AS payload FROM got WHERE actor_key = 'told';
ROLLBACK;

-- # Cancelled, and dropped with the type
BEGIN;
SELECT djactor.send('asker', 'cancelled', '{"ask": "asked", "with": {}}') > 0;
SELECT djactor.drain(1);
SELECT djactor.cancel(id) FROM djactor.message WHERE actor_type = 'asked';
SELECT djactor.drain() > 0 AS drained;
SELECT got FROM got WHERE actor_key = 'cancelled';
ROLLBACK;
BEGIN;
SELECT djactor.send('asker', 'dropped', '{"ask": "asked", "with": {}}') > 0;
SELECT djactor.drain(1);
SELECT djactor.drop_actor_type('asked', true);
SELECT djactor.drain() > 0 AS drained;
SELECT got -> 'meta' ->> 'reason' AS reason FROM got WHERE actor_key = 'dropped';
ROLLBACK;
-- # The type that asked is gone: nobody is told, and the ask is handled
BEGIN;
SELECT djactor.send('asker', 'gone', '{"ask": "asked", "with": {"reply": 1}}') > 0;
SELECT djactor.drain(1);
SELECT djactor.drop_actor_type('asker', true);
SELECT djactor.drain() > 0 AS drained;
SELECT count(*) AS waiting FROM djactor.message WHERE actor_type LIKE 'ask%';
ROLLBACK;

-- # Deferred: the answer says whom was asked, not who happened to answer
BEGIN;
SELECT djactor.send('asker', 'deferred', '{"ask": "asked", "with": {"do": "SELECT djactor.defer_reply() * 0"}}', headers => '{"tenant": 10}') > 0;
SELECT djactor.drain() > 0 AS drained;
SELECT djactor.send('asked', 'other', jsonb_build_object('do', format('SELECT djactor.reply(''"at last"'', %s)', id)), headers => '{"tenant": 11}') > 0
	FROM djactor.message WHERE aside = 'deferred';
SELECT djactor.drain() > 0 AS drained;
SELECT got FROM got WHERE actor_key = 'deferred';
ROLLBACK;

-- # An actor that asks itself gets its answer, too
BEGIN;
SELECT djactor.define_actor_type('asked.self', 'act');
SELECT djactor.send('asked.self', 'b', $${"do": "SELECT djactor.send('asked.self', 'b', '{\"n\": 2, \"reply\": {\"n\": 3}}', wants_reply => true) * 0"}$$) > 0;
SELECT djactor.drain();
SELECT handled('asked.self', 'b');
ROLLBACK;

-- # An asker that has stopped meanwhile gets its answer as a fresh actor
BEGIN;
SELECT djactor.send('asker', 'fresh', '{"ask": "asked", "with": {"reply": 1}}') > 0;
SELECT djactor.drain(1);
SELECT djactor.stop_actor('asker', 'fresh');
SELECT djactor.drain() > 0 AS drained;
SELECT got -> 'kind' AS kind FROM got WHERE actor_key = 'fresh';
ROLLBACK;

-- # A payload that looks like djactor's own is a payload
BEGIN;
INSERT INTO djactor.message (actor_type, actor_key, payload, in_reply_to) VALUES
	('asker', 'forged', '{"kind": "timer", "name": "t", "due_at": "2000-01-01", "missed": 3}', 1),
	('asker', 'forged', '{"kind": "down", "actor_type": "asked", "actor_key": "b", "reason": "stopped"}', NULL),
	('asker', 'forged', '{"kind": "error", "reason": "failed"}', 1);
SELECT djactor.drain();
SELECT got -> 'kind' AS kind, got -> 'meta' AS meta FROM got WHERE actor_key = 'forged';
ROLLBACK;

-- # Who sends may not say who he is, nor of which kind the message is, be he the owner of the type
CREATE ROLE regress_dja_sends LOGIN;
GRANT INSERT (actor_type, actor_key, payload, headers, priority, deliver_at, expires_at, idempotency_key, wants_reply, in_reply_to, trace_id), SELECT ON djactor.message TO regress_dja_sends;
SET ROLE regress_dja_sends;
CALL refused($$INSERT INTO djactor.message (actor_type, actor_key, kind) VALUES ('asker', 'x', 'timer')$$);
CALL refused($$INSERT INTO djactor.message (actor_type, actor_key, meta) VALUES ('asker', 'x', '{}')$$);
CALL refused($$INSERT INTO djactor.message (actor_type, actor_key, sender_type) VALUES ('asker', 'x', 'asked')$$);
CALL refused($$INSERT INTO djactor.message (actor_type, actor_key, sender_key) VALUES ('asker', 'x', 'b')$$);
CALL refused($$INSERT INTO djactor.message (actor_type, actor_key, cause_id) VALUES ('asker', 'x', 1)$$);
CALL refused($$INSERT INTO djactor.message (actor_type, actor_key, aside) VALUES ('asker', 'x', 'deferred')$$);
CALL refused($$INSERT INTO djactor.message (actor_type, actor_key, redrives) VALUES ('asker', 'x', 1)$$);
CALL refused($$INSERT INTO djactor.message (id, actor_type, actor_key) OVERRIDING SYSTEM VALUE VALUES (1, 'asker', 'x')$$);
CALL refused($$UPDATE djactor.message SET kind = 'reply'$$);
CALL refused($$INSERT INTO djactor.reply VALUES (1, '1', NULL, now(), now())$$);
CALL refused($$INSERT INTO djactor.idempotency VALUES ('asker', 'x', 'k', 1, true, '1', NULL, now())$$);
RESET ROLE;
REVOKE ALL ON djactor.message FROM regress_dja_sends;
DROP ROLE regress_dja_sends;

DROP VIEW got;
SELECT djactor.drop_actor_type(name, true) FROM djactor.actor_type WHERE name LIKE 'ask%';
DROP FUNCTION asker;
\i :tests/sql/include/ask_end.sql
