--
-- Contract 18 for hosted turns: each ask gets exactly one answer, whatever becomes of it: before it is handed out, while a host has it, and
-- afterwards. (A host or a session that crashes: test/t/111_hosted_deaths.pl)
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
\i :tests/sql/include/hosted.sql
SELECT djactor.define_actor_type('hosted', NULL, hosted => true, max_attempts => 2, backoff => '1 ms', backoff_max => '1 ms', mailbox_limit => 1, on_full => 'dead_letter'),
	djactor.define_actor_type('hosted.dropped', NULL, hosted => true), djactor.define_actor_type('hosted.stops', NULL, hosted => true),
	djactor.define_actor_type('hosted.slow', NULL, hosted => true, backoff => '1100 ms', backoff_max => '1100 ms');
SELECT djactor.host_open('{hosted,hosted.dropped,hosted.stops,hosted.slow}') > 0 AS opened;
DELETE FROM djactor.reply;
CREATE TABLE ask (serial serial, id bigint, word text);
-- asks(word, type, expires): each of an actor of its own
CREATE FUNCTION asks(word text, type text DEFAULT 'hosted', expires timestamptz DEFAULT NULL) RETURNS void LANGUAGE sql AS $$
	INSERT INTO ask (id, word) SELECT djactor.send(type, word, to_jsonb(word), wants_reply => true, expires_at => expires), word
$$;
CREATE VIEW answers AS SELECT word, count(r.message_id) AS answers, min(r.payload::text) AS payload, min(r.error ->> 'reason') AS reason, min(r.error ->> 'error') AS error
	FROM ask LEFT JOIN djactor.reply r ON message_id = ask.id GROUP BY serial, word ORDER BY serial;

-- # The reply of the turn, or JSON null: by complete() and by end_turn()
SELECT asks(w) FROM unnest('{replies,nothing,ends,ends with nothing,twice,an error,defers}'::text[]) w;
SELECT * FROM claims();
SELECT djactor.complete(ARRAY[token('replies'), token('nothing')], ARRAY[id('replies'), id('nothing')], '{1,2}', ARRAY['"yes"', NULL]::jsonb[]);
BEGIN;
SELECT begin_turn('ends');
CALL djactor.end_turn(NULL, '"at the end"');
SELECT begin_turn('ends with nothing');
CALL djactor.end_turn('{}');
SELECT begin_turn('twice');
SELECT djactor.reply('"the first"'), djactor.reply('"the second"'), djactor.reply_error('"the third"');
CALL djactor.end_turn(NULL, '"the fourth"');
SELECT begin_turn('an error');
SELECT djactor.reply_error('{"why": "not"}');
CALL djactor.end_turn(NULL, '"not this"');
SELECT begin_turn('defers');
SELECT djactor.defer_reply() > 0 AS deferred;
CALL djactor.end_turn(NULL, '"not yet"');
COMMIT;
SELECT * FROM answers;

-- # A deferred one once more, by another turn; the first answer counts
SELECT put('hosted', 'answers', 'answers');
SELECT * FROM claims();
BEGIN;
SELECT begin_turn('answers');
SELECT djactor.reply('"later"', id), djactor.reply('"too late"', id) FROM ask WHERE word = 'defers';
CALL djactor.end_turn();
COMMIT;
SELECT * FROM answers WHERE word = 'defers';

-- # A reply that nobody asked for does nothing
SELECT put('hosted', 'unasked', 'unasked');
SELECT * FROM claims();
SELECT djactor.complete(ARRAY[token('unasked')], ARRAY[id('unasked')], '{1}', '{"\"unasked\""}');
SELECT count(*) - (SELECT count(*) FROM ask) AS more_answers FROM djactor.reply;
TRUNCATE ask;

-- # What is rolled back has not answered
SELECT asks('rolled back');
SELECT * FROM claims();
BEGIN;
SELECT begin_turn('rolled back');
SELECT djactor.reply('"no"');
CALL djactor.end_turn();
ROLLBACK;
SELECT * FROM answers;
SELECT complete('rolled back');
SELECT * FROM answers;
TRUNCATE ask;

-- # An error that says why: failed, rejected, mailbox_full, and cancelled while a host has it
SELECT asks(w) FROM unnest('{failed,rejected,cancelled}'::text[]) w;
SELECT asks('failed') AS too_many;
SELECT * FROM claims();
SELECT fail('failed'), fail('rejected', 'JA003');
CALL take_until('failed');
SELECT fail('failed', '22012');
SELECT djactor.cancel(id('cancelled'));
SELECT complete('cancelled');
SELECT * FROM answers;
TRUNCATE ask;

-- # stopped: by a turn that takes what waits along, also what was handed out with it
INSERT INTO ask (id, word) SELECT djactor.send('hosted.stops', 'a', to_jsonb(w), wants_reply => true), w FROM unnest('{stops,handed out with it,waits}'::text[]) w;
SELECT * FROM claims(100, 2);
BEGIN;
SELECT begin_turn('stops');
SELECT djactor.stop(discard => true);
CALL djactor.end_turn();
COMMIT;
SELECT complete('handed out with it');
SELECT * FROM answers;
TRUNCATE ask;

-- # dropped: with its type, which a host has given its mail back of
INSERT INTO ask (id, word) SELECT djactor.send('hosted.dropped', 'a', to_jsonb(w), wants_reply => true), w FROM unnest('{given back,waits}'::text[]) w;
SELECT * FROM claims(100, 1);
SELECT release('given back');
SELECT djactor.drop_actor_type('hosted.dropped', true);
SELECT complete('given back'), fail('given back');
SELECT * FROM answers;
TRUNCATE ask;

-- # expired: before its next attempt, with what is known of the first
SELECT asks('slow', 'hosted.slow', clock_timestamp() + interval '1 s');
SELECT * FROM claims();
SELECT fail('slow');
CALL wait_until($$clock_timestamp() > retry_at FROM djactor.message WHERE actor_type = 'hosted.slow'$$);
CALL wait_until($$(SELECT count(*) FROM claims()) > 0 OR EXISTS (SELECT FROM answers WHERE answers > 0)$$);
SELECT * FROM answers;
SELECT error ->> 'attempts' AS attempts, error ->> 'last_error' AS last_error FROM djactor.reply WHERE message_id = (SELECT id FROM ask);
SELECT * FROM claims();
TRUNCATE ask;

-- # A late answer is kept, and can be had again
SELECT asks('late');
CREATE PROCEDURE answer_to(asked text) LANGUAGE plpgsql AS $$
BEGIN
	RAISE INFO '%', (SELECT djactor.wait_reply(id, '10 ms') FROM ask WHERE word = asked);
EXCEPTION WHEN SQLSTATE 'JA001' THEN
	RAISE INFO 'not yet';
END $$;
CALL answer_to('late');
SELECT * FROM claims();
CALL answer_to('late');
SELECT djactor.complete(ARRAY[token('late')], ARRAY[id('late')], '{1}', '{"\"late\""}');
CALL answer_to('late');
CALL answer_to('late');
TRUNCATE ask;

-- # Inside a turn nobody asks and waits (contract 17): the answer comes as mail
SELECT put('hosted', 'asker', 'asks');
SELECT * FROM claims();
\set VERBOSITY terse
BEGIN;
SELECT begin_turn('asks');
CALL djactor.ask('hosted', 'b', '1', '1 s', NULL);
ROLLBACK;
BEGIN;
SELECT begin_turn('asks');
SELECT djactor.send('hosted', 'b', '"asked"', wants_reply => true) AS ask \gset
SELECT djactor.wait_reply(:ask, '1 s');
ROLLBACK;
\set VERBOSITY default
BEGIN;
SELECT begin_turn('asks');
SELECT djactor.send('hosted', 'b', '"asked"', wants_reply => true) AS ask \gset
CALL djactor.end_turn();
COMMIT;
SELECT * FROM claims();
SELECT fail('asked', 'JA003');
SELECT actor_key, kind, in_reply_to = :ask AS answers, meta ->> 'reason' AS reason, payload ->> 'reason' AS in_payload FROM djactor.message WHERE actor_key = 'asker';
SELECT * FROM claims();
SELECT complete('error');

SELECT count(*) AS waiting FROM djactor.message;
SELECT claims FROM djactor.host;
SELECT djactor.host_close();
SELECT count(djactor.drop_actor_type(name, true)) AS dropped FROM djactor.actor_type WHERE name LIKE 'hosted%';
DELETE FROM djactor.dead_letter WHERE actor_type LIKE 'hosted%';
DELETE FROM djactor.reply;
DROP VIEW answers;
DROP TABLE ask;
DROP FUNCTION asks;
DROP PROCEDURE answer_to;
\i :tests/sql/include/hosted_end.sql
