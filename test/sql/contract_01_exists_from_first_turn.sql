--
-- Contract 1: an actor exists from its first committed turn. Sending neither creates its row nor locks it.
-- (That senders do not wait for each other: test/specs/contract-01-senders-do-not-wait.spec.)
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql

-- fails as long as the table says so
CREATE TABLE broken AS SELECT true AS yes;
CREATE FUNCTION c01(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF (SELECT yes FROM broken) THEN
		RAISE EXCEPTION 'not yet';
	END IF;
	RETURN collect(state, message);
END $$;
SELECT djactor.define_actor_type('c01', 'c01', max_attempts => 1);
SELECT djactor.pause('c01');

-- # Messages wait for an actor that is not there
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('c01', 'a', '1'), ('c01', 'a', '2');
SELECT count(*) AS actors FROM djactor.actor WHERE actor_type = 'c01';

-- # A turn that fails does not make it
SELECT djactor.resume('c01');
CALL idle('c01');
SELECT count(*) AS actors FROM djactor.actor WHERE actor_type = 'c01';
SELECT count(*) AS dead FROM djactor.dead_letter WHERE actor_type = 'c01';

-- # The first turn that commits does
UPDATE broken SET yes = false;
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('c01', 'a', '3');
CALL idle('c01');
SELECT actor_key, state, turns FROM djactor.actor WHERE actor_type = 'c01';

-- # Sending to it does not touch its row
SELECT djactor.pause('c01');
SELECT xmax = 0 AS not_locked, ctid AS place FROM djactor.actor WHERE actor_type = 'c01' \gset before_
BEGIN;
INSERT INTO djactor.message (actor_type, actor_key) SELECT 'c01', 'a' FROM generate_series(1, 1000);
SELECT xmax = 0 AS not_locked, ctid = :'before_place' AS not_written FROM djactor.actor WHERE actor_type = 'c01';
ROLLBACK;

SELECT djactor.drop_actor_type('c01', true);
DELETE FROM djactor.dead_letter WHERE actor_type = 'c01';
DROP FUNCTION c01;
DROP TABLE broken;
