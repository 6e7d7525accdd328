--
-- Contract 19: a duplicate idempotency key, of the same actor, neither raises nor waits: the message is accepted, discarded at its
-- turn, and its asker gets the first one's reply. A dead-lettered, cancelled or expired message frees its key; a redrive is
-- never a duplicate.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql

CREATE FUNCTION c19(state jsonb, message jsonb) RETURNS djactor.result LANGUAGE plpgsql AS $$
BEGIN
	IF message ? 'fail' AND (djactor.message()).redrives = 0 THEN
		RAISE EXCEPTION 'fails until it is redriven';
	ELSIF message ? 'defer' THEN
		PERFORM djactor.defer_reply();
	ELSIF message ? 'answer' THEN
		PERFORM djactor.reply('"answered later"', id) FROM djactor.message WHERE actor_type = 'c19' AND aside = 'deferred';
	END IF;
	RETURN ROW(collect(state, message -> 'n'), message);
END $$;
SELECT djactor.define_actor_type('c19', 'c19', max_attempts => 1);
DELETE FROM djactor.reply;

-- # The first one counts; another actor may have the same key; without a key there are no duplicates
SELECT djactor.send('c19', 'a', '{"n": 1}', idempotency_key => 'order 7', wants_reply => true) AS first \gset
SELECT djactor.send('c19', 'a', '{"n": 2}', idempotency_key => 'order 7', wants_reply => true) AS second \gset
INSERT INTO djactor.message (actor_type, actor_key, payload, idempotency_key) VALUES
	('c19', 'a', '{"n": 3}', 'order 7'), ('c19', 'a', '{"n": 4}', 'order 8'), ('c19', 'b', '{"n": 5}', 'order 7'),
	('c19', 'a', '{"n": 6}', NULL), ('c19', 'a', '{"n": 6}', NULL);
CALL idle('c19');
-- ... also much later than the batch
SELECT djactor.send('c19', 'a', '{"n": 7}', idempotency_key => 'order 7', wants_reply => true) AS third \gset
CALL idle('c19');
SELECT actor_key, state FROM djactor.actor WHERE actor_type = 'c19' ORDER BY 1;
SELECT djactor.wait_reply(id) FROM unnest(ARRAY[:first, :second, :third]) id;
SELECT count(*) AS dead FROM djactor.dead_letter WHERE actor_type = 'c19';

-- # While the first one's reply is deferred the duplicate's asker waits for it, too
SELECT djactor.send('c19', 'defer', '{"n": 1, "defer": true}', idempotency_key => 'k', wants_reply => true) AS first \gset
SELECT djactor.send('c19', 'defer', '{"n": 2}', idempotency_key => 'k', wants_reply => true) AS second \gset
CALL idle('c19');
SELECT count(*) AS answered FROM djactor.reply WHERE message_id IN (:first, :second);
SELECT djactor.send('c19', 'defer', '{"n": 3, "answer": true}') > 0 AS sent;
SELECT djactor.wait_reply(:first, '1 min'), djactor.wait_reply(:second, '1 min');
SELECT state FROM djactor.actor WHERE actor_type = 'c19' AND actor_key = 'defer';

-- # What died, was cancelled or expired has freed its key
INSERT INTO djactor.message (actor_type, actor_key, payload, idempotency_key, expires_at) VALUES
	('c19', 'free', '{"n": 1, "fail": true}', 'died', NULL), ('c19', 'free', '{"n": 2}', 'died', NULL),
	('c19', 'free', '{"n": 3}', 'expired', now() - interval '1 s'), ('c19', 'free', '{"n": 4}', 'expired', NULL);
CALL idle('c19');
SELECT djactor.pause('c19');
SELECT djactor.cancel(djactor.send('c19', 'free', '{"n": 5}', idempotency_key => 'cancelled'));
SELECT djactor.send('c19', 'free', '{"n": 6}', idempotency_key => 'cancelled') > 0 AS sent;
SELECT djactor.resume('c19');
CALL idle('c19');
SELECT state FROM djactor.actor WHERE actor_type = 'c19' AND actor_key = 'free';

-- # Redriven it is handled, although its key was used since
SELECT count(djactor.redrive(id)) AS redriven FROM djactor.dead_letter WHERE actor_type = 'c19' AND reason = 'failed';
CALL idle('c19');
SELECT state FROM djactor.actor WHERE actor_type = 'c19' AND actor_key = 'free';

SELECT djactor.drop_actor_type('c19', true);
DELETE FROM djactor.dead_letter WHERE actor_type = 'c19';
DELETE FROM djactor.reply;
DROP FUNCTION c19;
