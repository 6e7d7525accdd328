--
-- handler_timeout: no handler runs longer, whatever it does.
-- Section 2 (handler_timeout), section 3 point 12.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
CREATE TABLE slow (n int);
CREATE FUNCTION on_slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER on_slow AFTER INSERT ON slow DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION on_slow();
CREATE FUNCTION dawdle(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	CASE message #>> '{}'
		WHEN 'sleep' THEN
			PERFORM pg_sleep(60);
		WHEN 'loop' THEN
			LOOP
			END LOOP;
		WHEN 'swallow' THEN
			BEGIN
				PERFORM pg_sleep(60);
			EXCEPTION WHEN query_canceled THEN
				INSERT INTO slow VALUES (1);
				SET CONSTRAINTS ALL IMMEDIATE;
			END;
		WHEN 'pretend' THEN
			BEGIN
				PERFORM pg_sleep(60);
			EXCEPTION WHEN query_canceled THEN
				RETURN collect(state, '"nothing happened"');
			END;
		WHEN 'deferred' THEN
			INSERT INTO slow VALUES (2);
		ELSE
			RETURN collect(state, message);
	END CASE;
	RETURN collect(state, message);
END $$;
SELECT djactor.define_actor_type('timeout', 'dawdle', handler_timeout => '400 ms', max_attempts => 1);

-- # A handler that sleeps, one that loops, one that swallows the cancel and goes on,
-- # one that pretends nothing happened, one with a slow deferred trigger:
-- # each is cut off and charged, and its neighbours go on
INSERT INTO djactor.message (actor_type, actor_key, payload)
SELECT 'timeout', what, payload::jsonb
FROM unnest('{sleep,loop,swallow,pretend,deferred}'::text[]) what,
	LATERAL (VALUES (1, '"before"'), (2, to_jsonb(what)::text), (3, '"after"')) m (i, payload)
ORDER BY what, i;
CALL idle('timeout');
SELECT actor_key, state, turns, failures FROM djactor.actor WHERE actor_type = 'timeout' ORDER BY 1;
SELECT actor_key, attempts, reason, sqlstate, error FROM djactor.dead_letter WHERE actor_type = 'timeout' ORDER BY 1;
SELECT count(*) AS rows_left FROM slow;

-- # 0 is no limit
SELECT djactor.define_actor_type('timeout.none', 'dawdle', handler_timeout => '0');
SELECT djactor.send('timeout.none', 'n', '"quick"') > 0 AS sent;
CALL idle('timeout.none');
SELECT state FROM djactor.actor WHERE actor_type = 'timeout.none';

DELETE FROM djactor.dead_letter WHERE actor_type LIKE 'timeout%';
SELECT djactor.drop_actor_type('timeout', true), djactor.drop_actor_type('timeout.none', true);
DROP TABLE slow;
DROP FUNCTION dawdle, on_slow;
