--
-- Who sent it: sender, cause, trace and headers, outside and inside a turn.
-- Section 2 (message: headers and trace pass on to everything a turn sends).
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql

-- note keeps what message() says of each message; relay sends two more, by send() and by INSERT.
CREATE TABLE noted (step text, id bigint, sender_type text, sender_key text, cause_id bigint, trace_id uuid, headers jsonb);
CREATE FUNCTION note(state jsonb, message jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	m djactor.message := djactor.message();
BEGIN
	INSERT INTO noted VALUES (message ->> 'step', m.id, m.sender_type, m.sender_key, m.cause_id, m.trace_id, m.headers);
END $$;
CREATE FUNCTION relay(state jsonb, message jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM note(state, message);
	PERFORM djactor.send('sender.note', 'n', '{"step": "by send()"}');
	INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('sender.note', 'n', '{"step": "by INSERT"}');
	PERFORM djactor.send('sender.note', 'n', '{"step": "own headers"}', headers => '{"tenant": 2}');
END $$;
SELECT djactor.define_actor_type('sender.note', 'note');
SELECT djactor.define_actor_type('sender.relay', 'relay');

-- # From outside: no sender, no cause, no headers; one trace for all of one transaction
BEGIN;
SELECT djactor.send('sender.note', 'n', '{"step": "one"}') > 0 AS sent;
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('sender.note', 'n', '{"step": "two"}');
COMMIT;
SELECT djactor.send('sender.note', 'n', '{"step": "three"}') > 0 AS sent;
CALL idle('sender.note');
SELECT step, sender_type, sender_key, cause_id, headers FROM noted ORDER BY id;
SELECT count(DISTINCT trace_id) FILTER (WHERE step IN ('one', 'two')) AS traces_of_one_transaction,
	count(DISTINCT trace_id) AS traces_of_two FROM noted;

-- # The sender may bring a trace of its own
INSERT INTO djactor.message (actor_type, actor_key, payload, trace_id)
VALUES ('sender.note', 'n', '{"step": "own trace"}', '12345678-1234-1234-1234-123456789abc');
CALL idle('sender.note');
SELECT trace_id FROM noted WHERE step = 'own trace';

-- # From inside a turn: sender and cause are the actor and its message; trace and headers pass on
TRUNCATE noted;
SELECT djactor.send('sender.relay', 'r 1', '{"step": "start"}', headers => '{"tenant": 1, "user": "ann"}') > 0 AS sent;
CALL idle('sender.relay');
CALL idle('sender.note');
SELECT n.step, n.sender_type, n.sender_key, n.cause_id = s.id AS caused_by_start, n.trace_id = s.trace_id AS same_trace, n.headers
FROM noted n, (SELECT * FROM noted WHERE step = 'start') s ORDER BY n.id;

-- # Two turns of one batch are not mistaken for each other
TRUNCATE noted;
SELECT djactor.pause('sender.relay');
INSERT INTO djactor.message (actor_type, actor_key, payload, headers)
SELECT 'sender.relay', 'r ' || i, '{"step": "start"}', to_jsonb(i) FROM generate_series(1, 3) i;
SELECT djactor.resume('sender.relay');
CALL idle('sender.relay');
CALL idle('sender.note');
SELECT n.step, n.sender_key, n.headers, s.headers AS cause_headers
FROM noted n JOIN noted s ON s.id = n.cause_id WHERE n.step <> 'start' ORDER BY s.headers, n.step;

-- # Outside a turn there is no self, no message, no sender
SELECT djactor.self() AS self, djactor.message() AS message, djactor.current_headers() AS headers,
	djactor.current_sender_type() AS sender_type, djactor.current_sender_key() AS sender_key, djactor.current_cause() AS cause;

SELECT djactor.drop_actor_type('sender.note', true), djactor.drop_actor_type('sender.relay', true);
DROP TABLE noted;
DROP FUNCTION note, relay;
