--
-- on_exhausted => 'suspend': the actor stops at the message that it cannot handle, until resume().
-- Section 2 (suspended, resume), section 3 points 6, 12 and 13.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
CREATE TABLE switch (broken boolean);
INSERT INTO switch VALUES (true);
CREATE FUNCTION depends(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF message ? 'needs switch' AND (SELECT broken FROM switch) THEN
		RAISE EXCEPTION 'the switch is broken';
	END IF;
	RETURN collect(state, message);
END $$;
SELECT djactor.define_actor_type('suspend', 'depends', max_attempts => 3, backoff => '1 ms', on_exhausted => 'suspend');
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES
	('suspend', 's', '1'), ('suspend', 's', '{"needs switch": true}'), ('suspend', 's', '2'),
	('suspend', 'other', '3'), ('suspend', 'first', '{"needs switch": true}');

-- # Suspended mail is idle: nothing more will happen by itself
CALL idle('suspend');
SELECT actor_key, status, state, turns, failures, last_error FROM djactor.actor WHERE actor_type = 'suspend' ORDER BY 1;
SELECT actor_key, payload, attempts, retry_at, last_error FROM djactor.message WHERE actor_type = 'suspend' ORDER BY id;
SELECT count(*) AS dead FROM djactor.dead_letter WHERE actor_type = 'suspend';

-- # Mail is accepted and waits, whatever its priority; the other actors go on
SELECT djactor.send('suspend', 's', '"urgent"', priority => 1) > 0 AS sent, djactor.send('suspend', 'other', '4') > 0 AS sent;
CALL idle('suspend');
SELECT actor_key, state FROM djactor.actor WHERE actor_type = 'suspend' ORDER BY 1;

-- # Resumed too early it fails max_attempts times again, and is suspended again
SELECT djactor.resume('suspend', 'first');
CALL idle('suspend');
SELECT status, failures FROM djactor.actor WHERE actor_type = 'suspend' AND actor_key = 'first';

-- # With the cause gone, resume() lets it go on where it stopped; nothing is lost
UPDATE switch SET broken = false;
SELECT djactor.resume('suspend', 's'), djactor.resume('suspend', 'first');
CALL idle('suspend');
SELECT actor_key, status, state, turns FROM djactor.actor WHERE actor_type = 'suspend' ORDER BY 1;
SELECT count(*) AS waiting FROM djactor.message WHERE actor_type = 'suspend';

SELECT djactor.drop_actor_type('suspend', true);
DROP TABLE switch;
DROP FUNCTION depends;
