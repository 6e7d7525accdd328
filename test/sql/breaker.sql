--
-- The breaker of a type: pauses it when too many attempts fail, instead of driving its mail into dead letters.
-- Section 2 (breaker_failures, breaker_window), section 3 points 6 and 14.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
CREATE TABLE switch (broken boolean);
INSERT INTO switch VALUES (true);
CREATE FUNCTION depends(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF (SELECT broken FROM switch) THEN
		RAISE EXCEPTION 'the switch is broken';
	END IF;
	RETURN collect(state, message);
END $$;
CREATE VIEW breaker AS SELECT name, paused, paused_reason FROM djactor.actor_type WHERE name LIKE 'breaker%';

-- # More than breaker_failures failed attempts pause the type, with the reason; what it has not tried waits
SELECT djactor.define_actor_type('breaker', 'depends', max_attempts => 1, concurrency => 1, breaker_failures => 3, breaker_window => '1 h');
INSERT INTO djactor.message (actor_type, actor_key, payload) SELECT 'breaker', 'a' || g, to_jsonb(g) FROM generate_series(1, 20) g;
CALL wait_until($$(SELECT paused FROM breaker)$$);
SELECT * FROM breaker;
SELECT count(*) AS dead FROM djactor.dead_letter WHERE actor_type = 'breaker';
SELECT count(*) AS waiting FROM djactor.message WHERE actor_type = 'breaker';
-- # Mail is still accepted
SELECT djactor.send('breaker', 'b', '"b"') > 0 AS sent;
-- # resume() tries again, and counts anew
BEGIN;
SELECT djactor.resume('breaker');
SELECT * FROM breaker;
COMMIT;
CALL wait_until($$(SELECT paused FROM breaker)$$);
SELECT count(*) AS dead FROM djactor.dead_letter WHERE actor_type = 'breaker';
-- # Mended, all goes on; what became a dead letter can be brought back
UPDATE switch SET broken = false;
SELECT djactor.resume('breaker');
CALL idle('breaker');
SELECT count(*) AS brought_back FROM (SELECT djactor.redrive(id) FROM djactor.dead_letter WHERE actor_type = 'breaker') _;
CALL idle('breaker');
SELECT count(*) AS handled FROM djactor.actor WHERE actor_type = 'breaker';
SELECT * FROM breaker;

-- # Attempts count, not messages: one that is retried trips it, too, and waits for its next attempt
UPDATE switch SET broken = true;
SELECT djactor.define_actor_type('breaker.retries', 'depends', max_attempts => 100, backoff => '1 ms', backoff_max => '1 ms', breaker_failures => 3, breaker_window => '1 h');
SELECT djactor.send('breaker.retries', 'a') > 0 AS sent;
CALL wait_until($$(SELECT paused FROM breaker WHERE name = 'breaker.retries')$$);
SELECT attempts FROM djactor.message WHERE actor_type = 'breaker.retries';

-- # breaker_failures => NULL turns it off
SELECT djactor.define_actor_type('breaker.off', 'depends', max_attempts => 1, breaker_failures => NULL);
INSERT INTO djactor.message (actor_type, actor_key) SELECT 'breaker.off', 'a' || g FROM generate_series(1, 150) g;
CALL idle('breaker.off');
SELECT count(*) AS dead FROM djactor.dead_letter WHERE actor_type = 'breaker.off';
SELECT paused FROM breaker WHERE name = 'breaker.off';

-- # Failures older than the window are forgotten
SELECT djactor.define_actor_type('breaker.window', 'depends', max_attempts => 1, breaker_failures => 2, breaker_window => '100 ms');
CREATE PROCEDURE fail_slowly(actor_type text, n int) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. n LOOP
		PERFORM djactor.send(actor_type, i::text);
		COMMIT;
		CALL idle(actor_type);
		PERFORM pg_sleep(0.25);
	END LOOP;
END $$;
CALL fail_slowly('breaker.window', 5);
SELECT paused FROM breaker WHERE name = 'breaker.window';
-- # also after the window was made longer than it was
SELECT djactor.define_actor_type('breaker.window', 'depends', max_attempts => 1, breaker_failures => 2, breaker_window => '200 ms');
CALL fail_slowly('breaker.window', 5);
SELECT paused FROM breaker WHERE name = 'breaker.window';

-- # Other types go on
UPDATE switch SET broken = false;
SELECT djactor.send('breaker.off', 'fine') > 0 AS sent;
CALL idle('breaker.off');
SELECT turns FROM djactor.actor WHERE actor_type = 'breaker.off';

SELECT djactor.drop_actor_type(name, true) FROM djactor.actor_type WHERE name LIKE 'breaker%';
DELETE FROM djactor.dead_letter WHERE actor_type LIKE 'breaker%';
DROP VIEW breaker;
DROP TABLE switch;
DROP PROCEDURE fail_slowly;
DROP FUNCTION depends;
