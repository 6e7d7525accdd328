--
-- Contract 13: after max_attempts a message goes to dead_letter with error, SQLSTATE and context; who asked gets an error, and
-- watchers are told. A type may suspend the actor instead. A rejected message goes there without retries.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql

CREATE FUNCTION c13(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	CASE message ->> 'do'
		WHEN 'fail' THEN RAISE EXCEPTION 'cannot do that' USING ERRCODE = 'DJ013', DETAIL = 'some detail', HINT = 'a hint';
		WHEN 'reject' THEN PERFORM djactor.reject('not for me');
		WHEN 'raise JA003' THEN RAISE EXCEPTION 'nor this' USING ERRCODE = 'JA003';
		ELSE NULL;
	END CASE;
	RETURN collect(state, message -> 'do');
END $$;
-- watches whom its message names, and collects what it is told
CREATE FUNCTION c13_watcher(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF (djactor.message()).kind = 'down' THEN
		RETURN collect(state, (djactor.message()).meta);
	END IF;
	PERFORM djactor.watch(message ->> 'type', 'a');
	RETURN state;
END $$;
SELECT djactor.define_actor_type('c13', 'c13', max_attempts => 3, backoff => '1 ms'),
	djactor.define_actor_type('c13.suspend', 'c13', max_attempts => 2, backoff => '1 ms', on_exhausted => 'suspend');
SELECT djactor.define_actor_type('c13.watcher', 'c13_watcher');
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('c13', 'a', '{"do": "start"}'), ('c13.suspend', 'a', '{"do": "start"}');
CALL idle('c13');
CALL idle('c13.suspend');
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('c13.watcher', 'w', '{"type": "c13"}'), ('c13.watcher', 'w', '{"type": "c13.suspend"}');
CALL idle('c13.watcher');

-- # Each of these asks
SELECT djactor.send('c13', 'a', jsonb_build_object('do', what), wants_reply => true) > 0 AS sent FROM unnest('{fail,reject,raise JA003,go on}'::text[]) what;
CALL idle('c13');
SELECT payload ->> 'do' AS do, attempts, reason, sqlstate, error, context LIKE '%c13(jsonb,jsonb)%actor c13 "a"%' AS context
FROM djactor.dead_letter WHERE actor_type = 'c13' ORDER BY id;
SELECT payload, error FROM djactor.reply ORDER BY message_id;
SELECT state, failures FROM djactor.actor WHERE actor_type = 'c13';

-- # suspend: the message stays, the actor stops
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('c13.suspend', 'a', '{"do": "fail"}'), ('c13.suspend', 'a', '{"do": "later"}');
CALL idle('c13.suspend');
SELECT status, state, failures FROM djactor.actor WHERE actor_type = 'c13.suspend';
SELECT payload, attempts FROM djactor.message WHERE actor_type = 'c13.suspend' ORDER BY id;

-- # The watcher was told of each
CALL idle('c13.watcher');
SELECT meta FROM djactor.actor, jsonb_array_elements(state) meta WHERE actor_type = 'c13.watcher';

SELECT count(djactor.drop_actor_type(name, true)) AS dropped FROM djactor.actor_type WHERE name LIKE 'c13%';
DELETE FROM djactor.dead_letter WHERE actor_type LIKE 'c13%';
DELETE FROM djactor.reply;
DROP FUNCTION c13, c13_watcher;
