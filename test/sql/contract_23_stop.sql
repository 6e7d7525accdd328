--
-- Contract 23: stop() removes the actor with its state and timers and tells each watcher once; watching an absent actor tells at
-- once. Waiting mail goes, in order, to a fresh actor, or with discard to dead_letter. Asks left open get an error. A first
-- turn that stops or rejects leaves no row.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql

CREATE FUNCTION c23(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	CASE message ->> 'do'
		WHEN 'timer' THEN PERFORM djactor.set_timer('t', after => '1 day');
		WHEN 'defer' THEN PERFORM djactor.defer_reply();
		WHEN 'stop' THEN PERFORM djactor.stop();
		WHEN 'discard' THEN PERFORM djactor.stop(discard => true);
		WHEN 'reject' THEN PERFORM djactor.reject('no');
		ELSE NULL;
	END CASE;
	RETURN collect(state, message -> 'do');
END $$;
CREATE FUNCTION c23_watcher(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF (djactor.message()).kind = 'down' THEN
		RETURN collect(state, jsonb_build_array((djactor.message()).meta -> 'actor_key', (djactor.message()).meta -> 'reason'));
	END IF;
	PERFORM djactor.watch('c23', message #>> '{}');
	RETURN state;
END $$;
SELECT djactor.define_actor_type('c23', 'c23', initial_state => '[]'), djactor.define_actor_type('c23.watcher', 'c23_watcher', initial_state => '[]');
CREATE PROCEDURE deliver(key text, VARIADIC what text[]) LANGUAGE sql AS
	$$INSERT INTO djactor.message (actor_type, actor_key, payload, wants_reply) SELECT 'c23', key, jsonb_build_object('do', w), w = 'defer' FROM unnest(what) w$$;
DELETE FROM djactor.reply;

-- # Watching one that is there, twice, and one that is not
CALL deliver('a', 'start', 'timer', 'defer');
CALL idle('c23');
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('c23.watcher', 'w', '"a"'), ('c23.watcher', 'w', '"a"'), ('c23.watcher', 'w', '"nobody"');
CALL idle('c23.watcher');
SELECT state FROM djactor.actor WHERE actor_type = 'c23.watcher';
SELECT actor_key, state, turns FROM djactor.actor WHERE actor_type = 'c23';

-- # It stops: state and timer are gone, the open ask is answered, the watcher is told once; what waited is handled, in order, by a fresh actor
CALL deliver('a', 'before', 'stop', 'after', 'the end');
CALL idle('c23');
CALL idle('c23.watcher');
SELECT actor_key, state, turns FROM djactor.actor WHERE actor_type = 'c23';
SELECT state FROM djactor.actor WHERE actor_type = 'c23.watcher';
SELECT (SELECT count(*) FROM djactor.timer WHERE actor_type = 'c23') AS timers, (SELECT count(*) FROM djactor.message WHERE actor_type = 'c23') AS messages,
	(SELECT count(*) FROM djactor.watch WHERE actor_type = 'c23') AS watches, (SELECT error ->> 'reason' FROM djactor.reply) AS answer;

-- # Stopped again nobody is told: a watch ends with it. With discard what waited is dead
CALL deliver('a', 'before', 'discard', 'after', 'the end');
CALL idle('c23');
CALL idle('c23.watcher');
SELECT count(*) AS actors FROM djactor.actor WHERE actor_type = 'c23';
SELECT payload, reason FROM djactor.dead_letter WHERE actor_type = 'c23' ORDER BY id;
SELECT jsonb_array_length(state) AS told FROM djactor.actor WHERE actor_type = 'c23.watcher';

-- # A first turn that stops or rejects leaves no row
CALL deliver('x', 'stop');
CALL deliver('y', 'reject');
CALL idle('c23');
SELECT count(*) AS actors FROM djactor.actor WHERE actor_type = 'c23';
SELECT count(*) AS identities FROM djactor.actor_identity WHERE actor_type = 'c23';

-- # By an operator
CALL deliver('b', 'start');
CALL idle('c23');
SELECT djactor.stop_actor('c23', 'b'), djactor.stop_actor('c23', 'b') AS again;
SELECT count(*) AS actors FROM djactor.actor WHERE actor_type = 'c23';

SELECT djactor.drop_actor_type('c23', true), djactor.drop_actor_type('c23.watcher', true);
DELETE FROM djactor.dead_letter WHERE actor_type = 'c23';
DELETE FROM djactor.reply;
DROP FUNCTION c23, c23_watcher;
DROP PROCEDURE deliver;
