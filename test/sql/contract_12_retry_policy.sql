--
-- Contract 12: a failed message is retried with exponential backoff and jitter. Under hold only what sorts before it is due
-- meanwhile, and no other actor is touched. What is nobody's fault uses up no attempt, and an error that batch-mates
-- may have caused counts only when it repeats alone.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql

CREATE TABLE mates (xid xid8, message jsonb);
CREATE FUNCTION c12(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF message ? 'fail' THEN
		RAISE EXCEPTION 'fails';
	ELSIF message ? 'nobody' AND nextval('c12_' || lower(message ->> 'nobody')) <= 1 THEN
		RAISE EXCEPTION USING ERRCODE = message ->> 'nobody';
	ELSIF message ? 'victim' AND EXISTS (SELECT FROM mates WHERE xid = pg_current_xact_id()) THEN
		RAISE undefined_table USING MESSAGE = 'a mate is in the way';
	END IF;
	INSERT INTO mates VALUES (pg_current_xact_id(), message);
	RETURN collect(state, message -> 'n');
END $$;
SELECT djactor.define_actor_type('c12', 'c12', backoff => '1 h', backoff_max => '3 h', max_attempts => 9);

-- # While the first of three waits for its retry: those behind it wait, one of higher priority passes, another actor goes on
SELECT djactor.pause('c12');
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES
	('c12', 'a', '{"n": 0}'), ('c12', 'a', '{"n": 1, "fail": true}'), ('c12', 'a', '{"n": 2}'), ('c12', 'b', '{"n": 3}');
SELECT djactor.resume('c12');
CALL wait_until($$EXISTS (SELECT FROM djactor.message WHERE actor_type = 'c12' AND attempts = 1)$$);
INSERT INTO djactor.message (actor_type, actor_key, payload, priority) VALUES ('c12', 'a', '{"n": 4}', 1), ('c12', 'a', '{"n": 5}', 0), ('c12', 'b', '{"n": 6}', 0);
CALL wait_until($$(SELECT count(*) FROM djactor.message WHERE actor_type = 'c12') = 3$$);
SELECT actor_key, state FROM djactor.actor WHERE actor_type = 'c12' ORDER BY 1;
SELECT payload, attempts, retry_at - now() BETWEEN interval '59 min' AND interval '75 min' AS within_jitter, last_error
FROM djactor.message WHERE actor_type = 'c12' ORDER BY id;

-- # The waits double, up to backoff_max; each has its jitter (drain() moves the clock)
BEGIN;
SELECT djactor.drain(until => now() + interval '5 h', on_error => 'retry') AS handled;
SELECT attempts, retry_at - now() BETWEEN interval '359 min' AND interval '406 min' AS one_two_three_hours FROM djactor.message WHERE actor_type = 'c12' ORDER BY id LIMIT 1;
ROLLBACK;
SELECT djactor.drop_actor_type('c12', true);

-- # Nobody's fault: not one attempt is used up, of only one that there is
SELECT djactor.define_actor_type('c12.nobody', 'c12', backoff => '1 h', max_attempts => 1);
DO $$
DECLARE
	nobody text;
BEGIN
	FOREACH nobody IN ARRAY '{40001,40P01,55P03,25006,53100,57014,58030}'::text[] LOOP
		EXECUTE format('CREATE SEQUENCE %I', 'c12_' || lower(nobody));
		PERFORM djactor.send('c12.nobody', nobody, jsonb_build_object('n', 1, 'nobody', nobody));
	END LOOP;
END $$;
CALL idle('c12.nobody');
SELECT actor_key, turns, failures FROM djactor.actor WHERE actor_type = 'c12.nobody' ORDER BY 1;

-- # Perhaps a batch-mate's fault: handled when it is alone, and nothing is charged
INSERT INTO djactor.message (actor_type, actor_key, payload)
	SELECT 'c12.nobody', 'mates', m FROM jsonb_array_elements('[{"n": 1}, {"n": 2}, {"n": 3, "victim": true}, {"n": 4}]') m;
CALL idle('c12.nobody');
SELECT state, failures FROM djactor.actor WHERE actor_type = 'c12.nobody' AND actor_key = 'mates';
SELECT count(*) AS dead FROM djactor.dead_letter WHERE actor_type = 'c12.nobody';

SELECT djactor.drop_actor_type('c12.nobody', true);
DROP SEQUENCE c12_40001, c12_40p01, c12_55p03, c12_25006, c12_53100, c12_57014, c12_58030;
DROP TABLE mates;
DROP FUNCTION c12;
