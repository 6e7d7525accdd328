--
-- rate_by: a rate counts for each value of a header, or of the key up to a separator. fair_by: such values take turns,
-- however much mail each has.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
\i :tests/sql/include/hosted.sql
CREATE TABLE begun (serial serial, type text, key text, tenant text);
CREATE FUNCTION begins(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO begun (type, key, tenant) VALUES ((djactor.self()).actor_type, (djactor.self()).actor_key, (djactor.message()).headers ->> 'tenant');
	IF message = '"fails"' THEN
		RAISE EXCEPTION 'fails';
	END IF;
	RETURN state;
END $$;
CREATE FUNCTION waiting(type text) RETURNS TABLE (actor_key text, depth bigint, waits_for text) LANGUAGE sql AS $$
	SELECT actor_key, depth, waits_for FROM djactor.mailbox WHERE actor_type = type ORDER BY 1
$$;

-- # What they can be
CALL fails($$SELECT djactor.define_actor_type('bad', 'begins', rate => '1/s', rate_by => 'tenant')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'begins', rate => '1/s', rate_by => 'header:')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'begins', rate => '1/s', rate_by => '')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'begins', fair_by => 'key:')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'begins', rate_by => 'header:tenant')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'begins', rate => '1/s', rate_by => 'header:tenant', fair_by => 'key:-')$$);
SELECT djactor.define_actor_type('good', 'begins', rate => '1/s', rate_by => 'header:tenant', fair_by => 'header:tenant');
SELECT djactor.alter_actor_type('good', batch_size => 7);
SELECT rate, rate_by, fair_by FROM djactor.actor_type WHERE name = 'good';
CALL fails($$SELECT djactor.alter_actor_type('good', rate => NULL)$$);
SELECT djactor.alter_actor_type('good', rate => NULL, rate_by => NULL, fair_by => 'key:::');
SELECT rate, rate_by, fair_by FROM djactor.actor_type WHERE name = 'good';

-- for later, so that it has been swept by then
SELECT djactor.define_actor_type('hosted', NULL, hosted => true, rate => '2/hour', rate_by => 'header:tenant');

-- # Each value of the header has its own rate; no header is a value, too
SELECT djactor.define_actor_type('header', 'begins', rate => '2/hour', rate_by => 'header:tenant');
INSERT INTO djactor.message (actor_type, actor_key, headers) SELECT 'header', t || i, jsonb_build_object('tenant', t) FROM unnest(ARRAY['a', 'b']) t, generate_series(1, 4) i;
INSERT INTO djactor.message (actor_type, actor_key, headers) SELECT 'header', 'n' || i, CASE i WHEN 1 THEN '{"tenant": 7}' WHEN 2 THEN '{"tenant": "7"}' WHEN 3 THEN '{"tenant": 7}' END::jsonb FROM generate_series(1, 6) i;
CALL wait_until($$(SELECT count(*) = 6 AND bool_and(waits_for = 'rate') FROM djactor.mailbox WHERE actor_type = 'header')$$);
SELECT rtrim(actor_key, '123456') AS keys, count(*), min(waits_for) AS waits_for FROM waiting('header') GROUP BY 1 ORDER BY 1;
SELECT tenant, count(*) FROM begun WHERE type = 'header' GROUP BY 1 ORDER BY 1;
SELECT max(attempts) AS attempts, max(put_offs) AS put_offs, count(retry_at) AS retries FROM djactor.message WHERE actor_type = 'header';
SELECT min(waits_until) > now() + interval '50 min' AND max(waits_until) < now() + interval '70 min' AS in_an_hour FROM djactor.mailbox WHERE actor_type = 'header';

-- # ... an actor with messages of several values waits as each of them says, in order
INSERT INTO djactor.message (actor_type, actor_key, headers) SELECT 'header', 'mixed', jsonb_build_object('tenant', t) FROM unnest(ARRAY['c', 'c', 'd', 'a', 'd']) t;
CALL wait_until($$(SELECT depth = 2 AND waits_for = 'rate' FROM djactor.mailbox WHERE actor_type = 'header' AND actor_key = 'mixed')$$);
SELECT tenant FROM begun WHERE type = 'header' AND key = 'mixed' ORDER BY serial;

-- # ... a larger rate lets more begin, none all
SELECT djactor.alter_actor_type('header', rate => '3/hour');
CALL wait_until($$(SELECT count(*) = 4 FROM djactor.message WHERE actor_type = 'header')$$);
SELECT djactor.alter_actor_type('header', rate => NULL, rate_by => NULL);
CALL idle('header');

-- # A part of the key
SELECT djactor.define_actor_type('key', 'begins', rate => '2/hour', rate_by => 'key:--');
INSERT INTO djactor.message (actor_type, actor_key) SELECT 'key', t || i FROM unnest(ARRAY['x--', 'x-y--', 'x--y--']) t, generate_series(1, 2) i;
INSERT INTO djactor.message (actor_type, actor_key) SELECT 'key', 'whole' FROM generate_series(1, 3) i;
CALL wait_until($$(SELECT count(*) = 3 AND bool_and(waits_for = 'rate') FROM djactor.mailbox WHERE actor_type = 'key')$$);
SELECT rtrim(actor_key, '123456') AS keys, count(*), min(waits_for) AS waits_for FROM waiting('key') GROUP BY 1 ORDER BY 1;

-- # Waiting ends by itself, for each value
SELECT djactor.define_actor_type('short', 'begins', rate => '2/s', rate_by => 'key:-');
INSERT INTO djactor.message (actor_type, actor_key) SELECT 'short', t || '-' || i FROM unnest(ARRAY['a', 'b']) t, generate_series(1, 7) i;
CALL idle('short');
SELECT count(*) FROM begun WHERE type = 'short';
SELECT max(created_at) - min(created_at) BETWEEN '2.9 s' AND '20 s' AS in_time FROM djactor.actor WHERE actor_type = 'short';

-- # A failing mate costs no turn of the others
SELECT djactor.define_actor_type('failing', 'begins', rate => '3/hour', rate_by => 'key:-', max_attempts => 1, breaker_failures => NULL);
SELECT djactor.pause('failing');
INSERT INTO djactor.message (actor_type, actor_key, payload) SELECT 'failing', t || '-' || i, CASE i WHEN 2 THEN '"fails"' ELSE '1' END::jsonb FROM unnest(ARRAY['a', 'b']) t, generate_series(1, 4) i;
SELECT djactor.resume('failing');
CALL wait_until($$(SELECT count(*) = 2 FROM djactor.message WHERE actor_type = 'failing')$$);
SELECT (SELECT count(*) FROM djactor.dead_letter WHERE actor_type = 'failing') + (SELECT count(*) FROM djactor.actor WHERE actor_type = 'failing') AS ended;

-- # Fair: what comes late takes its turn before a backlog of another value
SELECT djactor.define_actor_type('fair', 'begins', fair_by => 'key:-', concurrency => 1);
SELECT djactor.pause('fair');
INSERT INTO djactor.message (actor_type, actor_key) SELECT 'fair', 'a-' || lpad(i::text, 4, '0') FROM generate_series(1, 2000) i;
INSERT INTO djactor.message (actor_type, actor_key) SELECT 'fair', 'b-' || i FROM generate_series(1, 2) i;
INSERT INTO djactor.message (actor_type, actor_key) VALUES ('fair', 'c');
SELECT djactor.resume('fair');
CALL idle('fair');
WITH turns AS (SELECT key, row_number() OVER (ORDER BY serial) AS n FROM begun WHERE type = 'fair')
	SELECT max(n) AS turns, max(n) FILTER (WHERE key LIKE 'b-%') < 1500 AS b_early, max(n) FILTER (WHERE key = 'c') < 1500 AS c_early FROM turns;

-- # ... in their order within a value
INSERT INTO djactor.message (actor_type, actor_key) SELECT 'fair', 'd-' || i FROM generate_series(1, 20) i;
CALL idle('fair');
SELECT string_agg(key, ' ' ORDER BY serial) FROM begun WHERE type = 'fair' AND key LIKE 'd-%';

-- # Hosted: likewise
SELECT djactor.host_open('{hosted}') > 0 AS opened;
INSERT INTO djactor.message (actor_type, actor_key, payload, headers) SELECT 'hosted', t || i, to_jsonb(t || i || w), jsonb_build_object('tenant', t) FROM unnest(ARRAY['a', 'b']) t, generate_series(1, 2) i, unnest(ARRAY['x', 'y']) w;
SELECT count(*), sum(cardinality(string_to_array(words, ' '))) AS turns FROM claims(10, 10);
SELECT count(*) FROM claims(10, 10);
SELECT * FROM waiting('hosted') WHERE waits_for = 'rate';
-- # ... what comes back without having begun does not count
SELECT djactor.release(array_agg(token)) > 0 AS released FROM taken WHERE word LIKE 'a%';
SELECT sum(cardinality(string_to_array(words, ' '))) AS turns FROM claims(10, 10);
SELECT count(*) FROM claims(10, 10);
SELECT djactor.host_close();

SELECT djactor.drop_actor_type(name, true) FROM unnest(ARRAY['good', 'header', 'key', 'short', 'failing', 'fair', 'hosted']) name;
DELETE FROM djactor.dead_letter;
DROP FUNCTION begins, waiting;
DROP TABLE begun;
\i :tests/sql/include/hosted_end.sql
