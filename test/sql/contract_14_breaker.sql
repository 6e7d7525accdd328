--
-- Contract 14: a type that fails more than breaker_failures times within breaker_window is paused, with a reason: its mail
-- waits, and is not driven into dead letters.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql

CREATE TABLE service AS SELECT true AS broken;
CREATE FUNCTION c14(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF (SELECT broken FROM service) AND message ? 'needs service' THEN
		RAISE EXCEPTION 'the service is broken';
	END IF;
	RETURN collect(state, message);
END $$;
SELECT djactor.define_actor_type('c14', 'c14', max_attempts => 1, breaker_failures => 5, breaker_window => '1 h', concurrency => 1, batch_size => 1);
SELECT djactor.define_actor_type('c14.other', 'c14', max_attempts => 1, breaker_failures => 5, breaker_window => '1 h');

-- # As many as breaker_failures are no reason yet
INSERT INTO djactor.message (actor_type, actor_key, payload) SELECT 'c14', i::text, '["needs service"]' FROM generate_series(1, 5) i;
CALL idle('c14');
SELECT name, paused, paused_reason FROM djactor.actor_type WHERE name = 'c14';

-- # One more is; the other type is not concerned
INSERT INTO djactor.message (actor_type, actor_key, payload) SELECT type, i::text, CASE type WHEN 'c14' THEN '["needs service"]' ELSE '[]' END::jsonb
	FROM generate_series(6, 50) i, unnest('{c14,c14.other}'::text[]) type;
CALL idle('c14');
CALL idle('c14.other');
SELECT name, paused, paused_reason FROM djactor.actor_type WHERE name LIKE 'c14%' ORDER BY 1;
SELECT (SELECT count(*) FROM djactor.dead_letter WHERE actor_type = 'c14') AS dead,
	(SELECT count(*) FROM djactor.message WHERE actor_type = 'c14') AS waiting,
	(SELECT count(*) FROM djactor.actor WHERE actor_type = 'c14.other') AS others;

-- # Mended and resumed: what waited is handled, nothing else was lost
UPDATE service SET broken = false;
SELECT djactor.resume('c14');
CALL idle('c14');
SELECT (SELECT count(*) FROM djactor.actor WHERE actor_type = 'c14') AS handled, (SELECT count(*) FROM djactor.message WHERE actor_type = 'c14') AS waiting;

-- # breaker_failures => NULL: never
UPDATE service SET broken = true;
SELECT djactor.define_actor_type('c14.never', 'c14', max_attempts => 1, breaker_failures => NULL);
INSERT INTO djactor.message (actor_type, actor_key, payload) SELECT 'c14.never', i::text, '["needs service"]' FROM generate_series(1, 200) i;
CALL idle('c14.never');
SELECT count(*) AS dead FROM djactor.dead_letter WHERE actor_type = 'c14.never';

SELECT count(djactor.drop_actor_type(name, true)) AS dropped FROM djactor.actor_type WHERE name LIKE 'c14%';
DELETE FROM djactor.dead_letter WHERE actor_type LIKE 'c14%';
DROP TABLE service;
DROP FUNCTION c14;
