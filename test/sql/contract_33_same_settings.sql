--
-- What a turn sees of the server's settings: its type's, whoever runs it.
-- Contract point 33; t/088_same_settings has timers and settings that are gone.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql

CREATE FUNCTION seen(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	RETURN jsonb_build_object('TimeZone', current_setting('TimeZone'), 'search_path', current_setting('search_path'),
		'DateStyle', current_setting('DateStyle'), 'IntervalStyle', current_setting('IntervalStyle'),
		'shop.tenant', coalesce(current_setting('shop.tenant', true), ''), 'day', '2027-07-01 22:00+00'::timestamptz::date);
END $$;

-- # A type remembers what its definer's session has, and shows it
SET TimeZone = 'Asia/Tokyo';
SET DateStyle = 'German';
SET IntervalStyle = 'iso_8601';
SET search_path = public, pg_temp;
SELECT djactor.define_actor_type('seen.tokyo', 'public.seen');
SET TimeZone = 'UTC';
SET DateStyle = 'ISO, DMY';
SELECT djactor.define_actor_type('seen.utc', 'public.seen', settings => '{"shop.tenant": "acme", "IntervalStyle": "postgres", "timezone": "Pacific/Honolulu"}');
SELECT djactor.define_actor_type('seen.null', 'public.seen', settings => '{"TimeZone": null, "search_path": null}');
RESET ALL;
SET TimeZone = 'America/New_York';
SET search_path = public;
SELECT name, settings FROM djactor.actor_type WHERE name LIKE 'seen.%' ORDER BY name;

-- # Its turns see that, in drain()
BEGIN;
SELECT count(djactor.send(t, k)) FROM unnest(ARRAY['seen.tokyo', 'seen.utc', 'seen.null']) t, unnest(ARRAY['a', 'b']) k;
SELECT djactor.drain();
SELECT actor_type, actor_key, state FROM djactor.actor WHERE actor_type IN ('seen.tokyo', 'seen.utc') ORDER BY 1, 2;
SELECT actor_key, state - 'search_path' FROM djactor.actor WHERE actor_type = 'seen.null' ORDER BY 1;
-- # ... and the session has its own again
SELECT current_setting('TimeZone'), current_setting('search_path'), current_setting('shop.tenant', true);
ROLLBACK;
-- # ... and in a worker
SELECT count(djactor.send(t, k)) FROM unnest(ARRAY['seen.tokyo', 'seen.utc', 'seen.null']) t, unnest(ARRAY['a', 'b']) k;
CALL idle('seen.tokyo');
CALL idle('seen.utc');
SELECT actor_type, actor_key, state FROM djactor.actor WHERE actor_type IN ('seen.tokyo', 'seen.utc') ORDER BY 1, 2;

-- # Defining it again takes the session's anew
SELECT djactor.define_actor_type('seen.tokyo', 'public.seen');
SELECT settings ->> 'TimeZone' FROM djactor.actor_type WHERE name = 'seen.tokyo';

-- # What a handler sets for itself ends with its turn, and the next one sees its type's
CREATE FUNCTION sets(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	before text := current_setting('TimeZone');
BEGIN
	IF message ? 'local' THEN
		SET LOCAL TimeZone = 'Asia/Kolkata';
	ELSE
		SET TimeZone = 'Asia/Kathmandu';
	END IF;
	RETURN jsonb_build_object('seen', coalesce(state->'seen', '[]') || to_jsonb(before));
END $$;
SELECT djactor.define_actor_type('seen.sets', 'public.sets', settings => '{"TimeZone": "Europe/Berlin"}');
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('seen.sets', 'k', '{"local": 1}'), ('seen.sets', 'k', '{}'), ('seen.sets', 'k', '{}');
CALL idle('seen.sets');
SELECT state FROM djactor.actor WHERE actor_type = 'seen.sets';

-- # A search path finds the type's tables
CREATE SCHEMA shop;
CREATE TABLE shop.thing (name text);
CREATE TABLE public.thing (name text);
CREATE FUNCTION finds(state jsonb, message jsonb) RETURNS void LANGUAGE sql AS $$ INSERT INTO thing VALUES (message->>'name') $$;
SET search_path = shop, public;
SELECT djactor.define_actor_type('seen.finds', 'public.finds');
SET search_path = public;
SELECT djactor.send('seen.finds', 'k', '{"name": "x"}') > 0 AS sent;
CALL idle('seen.finds');
SELECT * FROM shop.thing;
SELECT * FROM public.thing;

-- # What is no setting, or not a type's
CALL fails($$SELECT djactor.define_actor_type('bad', 'public.seen', settings => '[1]')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'public.seen', settings => '{"TimeZone": "Mars/Olympus"}')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'public.seen', settings => '{"no_such_setting": 1}')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'public.seen', settings => '{"shared_buffers": 1}')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'public.seen', settings => '{"Role": "postgres"}')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'public.seen', settings => '{"transaction_isolation": "serializable"}')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'public.seen', settings => '{"djactor.batch_time": 1}')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'public.seen', settings => '{"shop.tenant": {"a": 1}}')$$);
-- a number and a boolean are as good as their text
SELECT djactor.define_actor_type('seen.null', 'public.seen', settings => '{"work_mem": 4096, "enable_seqscan": false}');
SELECT settings - 'search_path' - 'DateStyle' FROM djactor.actor_type WHERE name = 'seen.null';

-- # The time of a timer is its type's, whatever the handler's function has, also after a dead letter
CREATE FUNCTION daily(state jsonb, message jsonb) RETURNS void LANGUAGE plpgsql SET TimeZone = 'Asia/Tokyo' AS $$
BEGIN
	IF message ? 'at' THEN
		PERFORM djactor.set_timer('daily', at => (message->>'at')::timestamptz, every => '1 day', payload => message - 'at');
	ELSIF message ? 'fails' THEN
		RAISE EXCEPTION 'no report today';
	END IF;
END $$;
SET TimeZone = 'UTC';
SELECT djactor.define_actor_type('seen.daily', 'public.daily', max_attempts => 1, settings => '{"TimeZone": "America/New_York"}');
BEGIN;
-- in New York the clocks are put forward on 14 March 2027
SELECT count(djactor.send('seen.daily', k, p)) FROM (VALUES ('well', '{"at": "2027-03-13 09:00-05"}'::jsonb), ('ill', '{"at": "2027-03-13 09:00-05", "fails": true}')) AS v (k, p);
SELECT djactor.drain(until => '2027-03-14 00:00-05', on_error => 'retry') > 0 AS handled;
SELECT actor_key, due_at AT TIME ZONE 'America/New_York' AS next FROM djactor.timer WHERE actor_type = 'seen.daily' ORDER BY 1;
ROLLBACK;

-- # A setting that the server does not take any more is the failure of the turns that want it, and of no other
CREATE TEXT SEARCH CONFIGURATION public.shop (COPY = pg_catalog.simple);
SELECT djactor.define_actor_type('seen.gone', 'public.seen', max_attempts => 1, settings => '{"default_text_search_config": "public.shop"}');
DROP TEXT SEARCH CONFIGURATION public.shop;
SELECT count(djactor.send(t, k)) FROM (VALUES ('seen.utc', 'c'), ('seen.gone', 'a'), ('seen.utc', 'd'), ('seen.gone', 'b')) AS v (t, k);
CALL idle('seen.gone');
CALL idle('seen.utc');
SELECT actor_key, sqlstate, error FROM djactor.dead_letter WHERE actor_type = 'seen.gone' ORDER BY 1;
SELECT actor_key FROM djactor.actor WHERE actor_type = 'seen.utc' ORDER BY 1;
