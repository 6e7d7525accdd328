--
-- Contract 7: a handler may execute more than once, and only its effects outside PostgreSQL can repeat. A type with
-- batch_size => 1, and any handler in C or in an untrusted language, has a transaction for each message: only
-- its own failure repeats it.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql

-- A sequence is not rolled back: it stands for the world outside.
CREATE SEQUENCE outside;
CREATE TABLE inside (n int);
CREATE FUNCTION c07(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM nextval('outside');
	INSERT INTO inside VALUES ((message ->> 'n')::int);
	IF message ->> 'n' = '50' AND (djactor.message()).attempts = 0 THEN
		RAISE EXCEPTION 'the fiftieth fails once';
	END IF;
	RETURN to_jsonb(coalesce((state ->> 0)::int, 0) + 1);
END $$;

-- # In a batch one failure repeats its mates; in the database nothing shows it
SELECT djactor.define_actor_type('c07', 'c07', initial_state => '0', backoff => '1 ms', concurrency => 1);
INSERT INTO djactor.message (actor_type, actor_key, payload) SELECT 'c07', 'a', jsonb_build_object('n', i) FROM generate_series(1, 100) i;
CALL idle('c07');
SELECT last_value > 101 AS repeated_outside FROM outside;
SELECT count(*) AS inside, count(DISTINCT n) AS of FROM inside;

-- # batch_size => 1: 100 messages and one retry
SELECT djactor.define_actor_type('c07.alone', 'c07', initial_state => '0', backoff => '1 ms', concurrency => 1, batch_size => 1);
SELECT setval('outside', 1, false);
TRUNCATE inside;
INSERT INTO djactor.message (actor_type, actor_key, payload) SELECT 'c07.alone', 'a', jsonb_build_object('n', i) FROM generate_series(1, 100) i;
CALL idle('c07.alone');
SELECT last_value AS outside FROM outside;
SELECT count(*) AS inside, count(DISTINCT n) AS of FROM inside;
SELECT actor_type, state, turns FROM djactor.actor WHERE actor_type LIKE 'c07%' ORDER BY 1;

-- # A handler in C (this one returns the headers): each message has a transaction, with a start of its own
CREATE FUNCTION c07_in_c(state jsonb, message jsonb) RETURNS jsonb LANGUAGE c AS '$libdir/djactor', 'dja_current_headers';
SELECT djactor.define_actor_type('c07.c', 'c07_in_c', concurrency => 1), djactor.define_actor_type('c07.trusted', 'collect', concurrency => 1);
SELECT djactor.pause('c07.c'), djactor.pause('c07.trusted');
INSERT INTO djactor.message (actor_type, actor_key, headers) SELECT type, i::text, '{}'
	FROM generate_series(1, 10) i, unnest('{c07.c,c07.trusted}'::text[]) type;
SELECT djactor.resume('c07.c');
CALL idle('c07.c');
SELECT djactor.resume('c07.trusted');
CALL idle('c07.trusted');
SELECT actor_type, count(*) AS actors, CASE count(DISTINCT updated_at) WHEN 10 THEN 'one each' ELSE 'shared' END AS transactions
FROM djactor.actor WHERE actor_type IN ('c07.c', 'c07.trusted') GROUP BY 1 ORDER BY 1;

SELECT count(djactor.drop_actor_type(name, true)) AS dropped FROM djactor.actor_type WHERE name LIKE 'c07%';
DROP FUNCTION c07, c07_in_c;
DROP SEQUENCE outside;
DROP TABLE inside;
