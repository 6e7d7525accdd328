--
-- Contract 18: each ask gets exactly one answer: the reply, JSON null when its turn ends with neither reply nor deferral, or an
-- error. An ask past its time is not run, and is no dead letter. reply() to a message that nobody asked does nothing.
-- (crashed: test/t/016_crash_marker.pl)
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql

CREATE FUNCTION c18(state jsonb, message jsonb) RETURNS djactor.result LANGUAGE plpgsql AS $$
DECLARE
	open bigint;
BEGIN
	CASE message ->> 'do'
		WHEN 'return' THEN RETURN ROW(state, '"returned"'::jsonb);
		WHEN 'reply' THEN PERFORM djactor.reply('"replied"');
		WHEN 'twice' THEN PERFORM djactor.reply('"the first"'), djactor.reply('"the second"'); RETURN ROW(NULL::jsonb, '"the third"'::jsonb);
		WHEN 'error' THEN PERFORM djactor.reply_error('{"why": "no"}');
		WHEN 'defer' THEN RETURN ROW(to_jsonb(djactor.defer_reply()), '"not this"'::jsonb);
		WHEN 'answer deferred' THEN PERFORM djactor.reply('"later"', state::bigint), djactor.reply('"too late"', state::bigint);
		WHEN 'fail' THEN RAISE EXCEPTION 'failing' USING ERRCODE = 'DJ018';
		WHEN 'reject' THEN PERFORM djactor.reject('rejecting');
		WHEN 'defer and stop' THEN PERFORM djactor.defer_reply(), djactor.stop();
		ELSE NULL;
	END CASE;
	RETURN NULL;
END $$;
SELECT djactor.define_actor_type('c18', 'c18', initial_state => '0', max_attempts => 1), djactor.define_actor_type('c18.dropped', 'c18');
DELETE FROM djactor.reply;
CREATE TABLE ask (id bigint, do_what text);
CREATE PROCEDURE ask(do_what text, type text DEFAULT 'c18', expires timestamptz DEFAULT NULL) LANGUAGE sql AS $$
	INSERT INTO ask SELECT djactor.send(type, 'a', jsonb_build_object('do', do_what), wants_reply => true, expires_at => expires), do_what
$$;

-- # Asked from outside
SELECT djactor.pause('c18'), djactor.pause('c18.dropped');
CALL ask('return');
CALL ask('reply');
CALL ask('twice');
CALL ask('error');
CALL ask('nothing');
CALL ask('fail');
CALL ask('reject');
CALL ask('cancelled');
CALL ask('expired', expires => now() - interval '1 s');
CALL ask('defer');
CALL ask('answer deferred');
CALL ask('defer and stop');
CALL ask('type dropped', 'c18.dropped');
SELECT djactor.cancel(id) AS cancelled FROM ask WHERE do_what = 'cancelled';
SELECT djactor.drop_actor_type('c18.dropped', true), djactor.resume('c18');
CALL idle('c18');
SELECT do_what, count(r.message_id) AS answers, min(r.payload::text) AS payload, min(r.error::text) AS error
FROM ask LEFT JOIN djactor.reply r ON message_id = ask.id GROUP BY ask.id, do_what ORDER BY ask.id;
SELECT payload, reason FROM djactor.dead_letter WHERE actor_type LIKE 'c18%' ORDER BY id;
SELECT count(*) AS waiting FROM djactor.message WHERE actor_type LIKE 'c18%';

-- # wait_reply() returns the one and raises the other; it does not consume them
SELECT djactor.wait_reply(id) FROM ask, generate_series(1, 2) WHERE do_what = 'reply';
CREATE PROCEDURE answer(what text) LANGUAGE plpgsql AS $$
DECLARE
	error jsonb;
BEGIN
	PERFORM djactor.wait_reply(id, '0') FROM ask WHERE do_what = what;
EXCEPTION WHEN SQLSTATE 'JA001' OR SQLSTATE 'JA002' THEN
	GET STACKED DIAGNOSTICS error = PG_EXCEPTION_DETAIL;
	RAISE INFO '%: %', SQLSTATE, error;
END $$;
CALL answer('error');
CALL answer('reject');

-- # Nobody asked: no answer
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('c18', 'b', '{"do": "reply"}'), ('c18', 'b', '{"do": "return"}'), ('c18', 'b', '{"do": "fail"}');
CALL idle('c18');
SELECT count(*) - (SELECT count(*) FROM ask) AS more_answers FROM djactor.reply;

-- # Asked by an actor: the answer is a message, of kind reply or error
CREATE FUNCTION c18_asker(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	m djactor.message := djactor.message();
BEGIN
	IF m.kind = 'user' THEN
		RETURN state || jsonb_build_object(djactor.send('c18', 'a', message, wants_reply => true)::text, message -> 'do');
	END IF;
	RETURN state - m.in_reply_to::text || jsonb_build_object(state ->> m.in_reply_to::text, jsonb_build_array(m.kind, message, m.meta ->> 'reason'));
END $$;
SELECT djactor.define_actor_type('c18.asker', 'c18_asker');
INSERT INTO djactor.message (actor_type, actor_key, payload) SELECT 'c18.asker', 'a', jsonb_build_object('do', what)
	FROM unnest('{return,twice,error,nothing,fail,reject,defer,answer deferred}'::text[]) what;
CALL wait_until($$(SELECT count(*) FROM djactor.actor, jsonb_each(state) x (key, value) WHERE actor_type = 'c18.asker' AND jsonb_typeof(value) = 'array') = 8$$);
SELECT x.* FROM djactor.actor, jsonb_each(state) x WHERE actor_type = 'c18.asker' ORDER BY 1;

SELECT count(djactor.drop_actor_type(name, true)) AS dropped FROM djactor.actor_type WHERE name LIKE 'c18%';
DELETE FROM djactor.dead_letter WHERE actor_type LIKE 'c18%';
DELETE FROM djactor.reply;
DROP FUNCTION c18, c18_asker;
DROP PROCEDURE ask, answer;
DROP TABLE ask;
