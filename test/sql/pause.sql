--
-- pause() and resume(), of a type and of an actor.
-- Section 2 (operate), section 3 points 6 and 8.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
SELECT djactor.define_actor_type('pause', 'collect');
SELECT djactor.define_actor_type('pause.other', 'collect');

-- # A paused type accepts mail and starts no turns; it is idle; other types go on
SELECT djactor.pause('pause');
SELECT paused, paused_reason = 'paused by ' || current_user AS reason FROM djactor.actor_type WHERE name = 'pause';
SELECT djactor.send('pause', 'p', '1') > 0 AS sent, djactor.send('pause.other', 'p', '1') > 0 AS sent;
CALL idle('pause.other');
CALL idle('pause');
SELECT actor_type, state FROM djactor.actor WHERE actor_type LIKE 'pause%' ORDER BY 1;
SELECT actor_type, payload FROM djactor.message WHERE actor_type LIKE 'pause%';

-- # Pausing twice is no error; one resume() is enough, and one too many is no error either
SELECT djactor.pause('pause');
SELECT djactor.resume('pause');
CALL idle('pause');
SELECT djactor.resume('pause');
SELECT state FROM djactor.actor WHERE actor_type = 'pause';
SELECT paused, paused_reason FROM djactor.actor_type WHERE name = 'pause';

-- # A pause that is rolled back is none
BEGIN;
SELECT djactor.pause('pause');
ROLLBACK;
SELECT djactor.send('pause', 'p', '2') > 0 AS sent;
CALL idle('pause');
SELECT state FROM djactor.actor WHERE actor_type = 'pause';

-- # A paused actor stops alone
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('pause', 'q', '1');
CALL idle('pause');
SELECT djactor.pause('pause', 'p');
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('pause', 'p', '3'), ('pause', 'q', '2');
CALL idle('pause');
SELECT actor_key, state, paused, status FROM djactor.actor WHERE actor_type = 'pause' ORDER BY 1;
SELECT djactor.resume('pause', 'p');
CALL idle('pause');
SELECT actor_key, state, paused FROM djactor.actor WHERE actor_type = 'pause' ORDER BY 1;

-- # A turn may pause its own type, or itself: what the batch holds of it waits
CREATE FUNCTION stop_here(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF message = '"type"' THEN
		PERFORM djactor.pause('pause.turn');
	ELSIF message = '"actor"' THEN
		PERFORM djactor.pause('pause.turn', (djactor.self()).actor_key);
	END IF;
	RETURN collect(state, message);
END $$;
SELECT djactor.define_actor_type('pause.turn', 'stop_here');
SELECT djactor.send('pause.turn', 't', '0') > 0 AS sent;
CALL idle('pause.turn');
BEGIN;
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES
	('pause.turn', 't', '1'), ('pause.turn', 't', '"actor"'), ('pause.turn', 't', '2'),
	('pause.turn', 't', '"type"'), ('pause.turn', 't', '3');
COMMIT;
CALL idle('pause.turn');
SELECT state, paused FROM djactor.actor WHERE actor_type = 'pause.turn';
SELECT djactor.resume('pause.turn', 't');
CALL idle('pause.turn');
SELECT state FROM djactor.actor WHERE actor_type = 'pause.turn';
SELECT paused FROM djactor.actor_type WHERE name = 'pause.turn';
SELECT payload FROM djactor.message WHERE actor_type = 'pause.turn';
SELECT djactor.resume('pause.turn');
CALL idle('pause.turn');
SELECT state FROM djactor.actor WHERE actor_type = 'pause.turn';

-- # drain() leaves paused types and actors alone
SELECT djactor.pause('pause.other');
SELECT djactor.pause('pause', 'p');
BEGIN;
INSERT INTO djactor.message (actor_type, actor_key) VALUES ('pause.other', 'p'), ('pause', 'p');
SELECT djactor.drain();
ROLLBACK;

-- # Unknown types and actors
CALL fails($$SELECT djactor.pause('no such type')$$);
CALL fails($$SELECT djactor.resume('no such type')$$);
CALL fails($$SELECT djactor.pause('pause', 'no such actor')$$);
CALL fails($$SELECT djactor.resume('pause', 'no such actor')$$);

-- # An actor that never had a turn, while its first message waits an hour for its retry
CREATE TABLE switch (broken boolean);
INSERT INTO switch VALUES (true);
CREATE FUNCTION depends(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF (SELECT broken FROM switch) THEN
		RAISE EXCEPTION 'the switch is broken';
	END IF;
	RETURN collect(state, message);
END $$;
SELECT djactor.define_actor_type('pause.first', 'depends', backoff => '1 h');
SELECT djactor.send('pause.first', 'f', '1') > 0 AS sent;
CALL wait_until($$EXISTS (SELECT FROM djactor.message WHERE actor_type = 'pause.first' AND retry_at > now())$$);
SELECT djactor.send('pause.first', 'f', '2', priority => 1) > 0 AS sent;
CALL wait_until($$(SELECT count(*) FROM djactor.message WHERE actor_type = 'pause.first' AND retry_at > now()) = 2$$);
UPDATE switch SET broken = false;
CALL fails($$SELECT djactor.resume('pause.first', 'no such actor')$$);
SELECT djactor.resume('pause.first', 'f');
CALL wait_until($$EXISTS (SELECT FROM djactor.actor WHERE actor_type = 'pause.first')$$);
SELECT djactor.resume('pause.first', 'f');
CALL idle('pause.first');
SELECT actor_key, state, turns FROM djactor.actor WHERE actor_type = 'pause.first';

SELECT count(djactor.drop_actor_type(name, true)) AS dropped FROM djactor.actor_type WHERE name LIKE 'pause%';
DROP FUNCTION stop_here, depends;
DROP TABLE switch;
