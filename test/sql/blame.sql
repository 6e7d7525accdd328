--
-- Which errors use up an attempt, and which do not.
-- Section 3 point 12.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql


-- # Conflicts, locks, and a server in trouble never use up an attempt
-- (sequences do not roll back: they count how often a handler has begun)
CREATE FUNCTION unlucky(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF to_regclass('unlucky_' || (message ->> 'code')) IS NOT NULL
		AND nextval('unlucky_' || (message ->> 'code')) <= 2
	THEN
		RAISE EXCEPTION USING MESSAGE = 'bad luck', ERRCODE = message ->> 'code';
	END IF;
	RETURN to_jsonb((djactor.message()).attempts);
END $$;
SELECT djactor.define_actor_type('blame.nobody', 'unlucky', max_attempts => 1);
DO $$
DECLARE
	code text;
BEGIN
	FOREACH code IN ARRAY '{08001,08006,40001,40P01,55P03,25006,53100,53200,53300,53400,57014,57P01,58030}'::text[] LOOP
		EXECUTE format('CREATE SEQUENCE %I', 'unlucky_' || code);
		PERFORM djactor.send('blame.nobody', code, jsonb_build_object('code', code));
	END LOOP;
END $$;
CALL idle('blame.nobody');
SELECT actor_key AS sqlstate, state AS failed_attempts, failures FROM djactor.actor WHERE actor_type = 'blame.nobody' ORDER BY 1;
SELECT actor_key, sqlstate FROM djactor.dead_letter WHERE actor_type = 'blame.nobody' ORDER BY 1;

-- # Errors that batch-mates may have caused count only when they repeat alone:
-- # this handler fails whenever it is not the first of its transaction
CREATE TABLE crowd (xid xid8, key text);
CREATE FUNCTION shy(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF EXISTS (SELECT FROM crowd WHERE xid = pg_current_xact_id()) THEN
		RAISE EXCEPTION USING MESSAGE = 'I am not alone', ERRCODE = message ->> 'code';
	END IF;
	INSERT INTO crowd VALUES (pg_current_xact_id(), (djactor.self()).actor_key);
	RETURN to_jsonb((djactor.message()).attempts);
END $$;
SELECT djactor.define_actor_type('blame.mates', 'shy', max_attempts => 1);
SELECT djactor.pause('blame.mates');
INSERT INTO djactor.message (actor_type, actor_key, payload)
SELECT 'blame.mates', code || ' ' || i, jsonb_build_object('code', code)
FROM unnest('{42P07,25001,0A000,55006,XX000}'::text[]) code, generate_series(1, 6) i;
SELECT djactor.resume('blame.mates');
CALL idle('blame.mates');
SELECT left(actor_key, 5) AS sqlstate, count(*) AS actors, sum(turns) AS turns, sum(failures) AS failures, max(state::int) AS failed_attempts
FROM djactor.actor WHERE actor_type = 'blame.mates' GROUP BY 1 ORDER BY 1;
SELECT actor_key, sqlstate, error FROM djactor.dead_letter WHERE actor_type = 'blame.mates' ORDER BY 1;

-- # The same errors of a message that is to blame for them: charged, and in the end given up
CREATE FUNCTION guilty(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF message ? 'code' THEN
		RAISE EXCEPTION USING MESSAGE = 'my fault', ERRCODE = message ->> 'code';
	END IF;
	RETURN collect(state, message);
END $$;
SELECT djactor.define_actor_type('blame.own', 'guilty', max_attempts => 2, backoff => '1 ms');
SELECT djactor.pause('blame.own');
INSERT INTO djactor.message (actor_type, actor_key, payload)
SELECT 'blame.own', code, payload
FROM unnest('{42P01,25001,0A000,55006,XX000,22000,P0001,23505}'::text[]) code,
	LATERAL (VALUES (1, '"before"'), (2, jsonb_build_object('code', code)), (3, '"after"')) m (i, payload)
ORDER BY code, i;
SELECT djactor.resume('blame.own');
CALL idle('blame.own');
SELECT actor_key, state, turns, failures FROM djactor.actor WHERE actor_type = 'blame.own' ORDER BY 1;
SELECT actor_key, attempts, sqlstate, error FROM djactor.dead_letter WHERE actor_type = 'blame.own' ORDER BY 1;

DELETE FROM djactor.dead_letter WHERE actor_type LIKE 'blame.%';
SELECT count(djactor.drop_actor_type(name, true)) AS dropped FROM djactor.actor_type WHERE name LIKE 'blame.%';
DROP TABLE crowd;
DROP FUNCTION unlucky, shy, guilty;
SET client_min_messages = warning;
DO $$
DECLARE
	s regclass;
BEGIN
	FOR s IN SELECT oid FROM pg_class WHERE relkind = 'S' AND relname LIKE 'unlucky\_%' LOOP
		EXECUTE 'DROP SEQUENCE ' || s;
	END LOOP;
END $$;
