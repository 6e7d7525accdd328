--
-- Contract 3: a turn is atomic. State, removal of the message, sends, timers, the reply and what the handler
-- wrote into tables commit together, or not at all.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql

CREATE TABLE written (what text);
CREATE FUNCTION c03(state jsonb, message jsonb) RETURNS djactor.result LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO written VALUES (message ->> 'do');
	PERFORM djactor.send('c03.other', 'o', message);
	PERFORM djactor.set_timer('t', after => '1 day');
	PERFORM djactor.reply(message);
	IF message ->> 'do' = 'fail' THEN
		RAISE EXCEPTION 'failed at the end';
	END IF;
	RETURN ROW(message, NULL)::djactor.result;
END $$;
-- everything that a turn can leave
CREATE FUNCTION effects() RETURNS TABLE (state jsonb, waiting bigint, sent bigint, timers bigint, written bigint, replies bigint)
LANGUAGE sql AS $$
	SELECT (SELECT a.state FROM djactor.actor a WHERE actor_type = 'c03'),
		(SELECT count(*) FROM djactor.message WHERE actor_type = 'c03' AND kind = 'user'),
		(SELECT count(*) FROM djactor.message WHERE actor_type = 'c03.other'),
		(SELECT count(*) FROM djactor.timer WHERE actor_type = 'c03'),
		(SELECT count(*) FROM written),
		(SELECT count(*) FROM djactor.reply WHERE error IS NULL)
$$;
SELECT djactor.define_actor_type('c03', 'c03', max_attempts => 1), djactor.define_actor_type('c03.other', 'collect');
SELECT djactor.pause('c03.other');
DELETE FROM djactor.reply;

-- # Nothing of a turn that fails
SELECT djactor.send('c03', 'a', '{"do": "fail"}', wants_reply => true) > 0 AS sent;
CALL idle('c03');
SELECT * FROM effects();
SELECT reason, error FROM djactor.dead_letter WHERE actor_type = 'c03';

-- # All of one that succeeds, although it shares its transaction with one that fails
INSERT INTO djactor.message (actor_type, actor_key, payload, wants_reply) VALUES
	('c03', 'a', '{"do": "fail"}', true), ('c03', 'a', '{"do": "succeed"}', true), ('c03', 'a', '{"do": "fail"}', true);
CALL idle('c03');
SELECT * FROM effects();

-- # drain() is no different: its savepoint, its caller's transaction
SELECT djactor.pause('c03');
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('c03', 'a', '{"do": "drained"}');
SELECT djactor.resume('c03.other');
CALL idle('c03.other');
SELECT djactor.pause('c03.other');
BEGIN;
SELECT djactor.resume('c03');
SELECT djactor.drain();
SELECT * FROM effects();
ROLLBACK;
SELECT * FROM effects();

SELECT djactor.drop_actor_type('c03', true), djactor.drop_actor_type('c03.other', true);
DELETE FROM djactor.dead_letter WHERE actor_type = 'c03';
DELETE FROM djactor.reply;
DROP FUNCTION c03, effects;
DROP TABLE written;
