--
-- trace(): the tree of messages that one request has caused.
-- Section 2 (operate).
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
-- Sends one message to each key named in its payload, which names keys in turn.
CREATE FUNCTION trace_handler(state jsonb, message jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	key text;
BEGIN
	IF message ? 'fail' THEN
		RAISE EXCEPTION 'told to fail';
	END IF;
	FOR key IN SELECT jsonb_object_keys(message) LOOP
		PERFORM djactor.send(CASE WHEN key LIKE 'held%' THEN 'trace.paused' ELSE 'trace.kept' END, key, message->key,
			deliver_at => CASE WHEN key LIKE 'later%' THEN now() + interval '1 d' END);
	END LOOP;
END $$;
SELECT djactor.define_actor_type('trace.kept', 'trace_handler', journal => '1 d', max_attempts => 1);
SELECT djactor.define_actor_type('trace.none', 'trace_handler');
SELECT djactor.define_actor_type('trace.paused', 'trace_handler');
SELECT djactor.pause('trace.paused');

-- # The tree, depth first, and what became of each message
INSERT INTO djactor.message (actor_type, actor_key, payload, trace_id)
VALUES ('trace.kept', 'root', '{"a": {"b": {"bad": {"fail": true}}, "held": {}}, "d": {}, "later": {}}', '00000000-0000-0000-0000-00000000000a');
CALL idle('trace.kept');
CREATE TEMPORARY TABLE traced AS SELECT * FROM djactor.trace('00000000-0000-0000-0000-00000000000a') WITH ORDINALITY;
SELECT repeat('  ', t.depth) || t.actor_key AS tree, t.actor_type, c.actor_key AS cause, t.depth, t.kind, t.status, t.error
FROM traced t LEFT JOIN traced c ON c.id = t.cause_id ORDER BY t.ordinality;

-- # Times: a handled message has started and finished, one that waits has neither, a dead letter was given up
SELECT status, sent_at <= now() AS sent, sent_at <= started_at AS started, COALESCE(started_at, sent_at) <= finished_at AS finished,
	wait >= '0' AS wait, run >= '0' AS run, run = finished_at - started_at AS run_is_the_turn
FROM traced ORDER BY ordinality;

-- # A message whose cause is not there is a root: its type keeps no journal
INSERT INTO djactor.message (actor_type, actor_key, payload, trace_id)
VALUES ('trace.none', 'gone', '{"x": {"y": {}}, "z": {}}', '00000000-0000-0000-0000-00000000000b');
CALL idle('trace.none');
CALL idle('trace.kept');
SELECT repeat('  ', depth) || actor_key AS tree, cause_id IS NOT NULL AS caused, status
FROM djactor.trace('00000000-0000-0000-0000-00000000000b');

-- # Nothing for a trace that nobody knows, or for none
SELECT count(*) FROM djactor.trace('00000000-0000-0000-0000-00000000000c');
SELECT count(*) FROM djactor.trace(NULL);

-- # Names of the caller's make no difference
CREATE FUNCTION public.never(bigint, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT false';
CREATE OPERATOR public.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = public.never);
SET search_path = public, pg_catalog;
SELECT count(*) FROM djactor.trace('00000000-0000-0000-0000-00000000000b');
RESET search_path;
DROP OPERATOR public.= (bigint, bigint);
DROP FUNCTION public.never;

-- # It reads with the caller's rights
CREATE ROLE regress_dja_trace;
SET ROLE regress_dja_trace;
CALL fails($$SELECT count(*) FROM djactor.trace('00000000-0000-0000-0000-00000000000a')$$);
RESET ROLE;
DROP ROLE regress_dja_trace;

DROP TABLE traced;
SELECT djactor.drop_actor_type(name, true) FROM djactor.actor_type WHERE name LIKE 'trace.%';
DELETE FROM djactor.dead_letter WHERE actor_type = 'trace.kept';
DELETE FROM djactor.journal WHERE actor_type = 'trace.kept';
DROP FUNCTION trace_handler;
