--
-- The state may be read at any time, and updated by hand: such an update is never lost.
-- Section 2 (allowed writes), section 3 point 21.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
CREATE FUNCTION add_turn(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS
	$$SELECT jsonb_set($1, '{turns}', to_jsonb(($1 -> 'turns')::int + 1))$$;
SELECT djactor.define_actor_type('by_hand', 'add_turn', initial_state => '{"turns": 0, "hand": 0}');
SELECT djactor.send('by_hand', 'h') > 0 AS sent;
CALL idle('by_hand');

-- # The next turn gets what was written by hand
UPDATE djactor.actor SET state = '{"turns": 100, "hand": 1}' WHERE actor_type = 'by_hand' AND actor_key = 'h';
SELECT djactor.send('by_hand', 'h') > 0 AS sent;
CALL idle('by_hand');
SELECT state, turns FROM djactor.actor WHERE actor_type = 'by_hand';

-- # Together with a send, in one transaction
BEGIN;
UPDATE djactor.actor SET state = '{"turns": 200, "hand": 2}' WHERE actor_type = 'by_hand' AND actor_key = 'h';
SELECT djactor.send('by_hand', 'h') > 0 AS sent;
COMMIT;
CALL idle('by_hand');
SELECT state, turns FROM djactor.actor WHERE actor_type = 'by_hand';

-- # JSON null is a state, SQL NULL is none
CALL fails($$UPDATE djactor.actor SET state = NULL WHERE actor_type = 'by_hand'$$);

-- # Hundreds of updates by hand among thousands of turns: not one of either is lost
UPDATE djactor.actor SET state = '{"turns": 0, "hand": 0}' WHERE actor_type = 'by_hand';
INSERT INTO djactor.message (actor_type, actor_key) SELECT 'by_hand', 'h' FROM generate_series(1, 5000);
DO $$
BEGIN
	FOR i IN 1 .. 300 LOOP
		UPDATE djactor.actor SET state = jsonb_set(state, '{hand}', to_jsonb((state -> 'hand')::int + 1))
		WHERE actor_type = 'by_hand' AND actor_key = 'h';
		COMMIT;
	END LOOP;
END $$;
CALL idle('by_hand');
SELECT state FROM djactor.actor WHERE actor_type = 'by_hand';
SELECT count(*) AS dead FROM djactor.dead_letter WHERE actor_type = 'by_hand';

-- # A turn may lock its own actor's row, more than once and in different ways, and stop
CREATE FUNCTION lock_self(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM FROM djactor.actor WHERE actor_type = 'by_hand' AND actor_key = 'h' FOR KEY SHARE;
	BEGIN
		PERFORM FROM djactor.actor WHERE actor_type = 'by_hand' AND actor_key = 'h' FOR UPDATE;
	EXCEPTION WHEN division_by_zero THEN	-- for its savepoint
		NULL;
	END;
	IF message ? 'stop' THEN
		PERFORM djactor.stop();
	END IF;
	RETURN message;
END $$;
SELECT djactor.define_actor_type('by_hand', 'lock_self');
SELECT djactor.send('by_hand', 'h', '{"locked": true}') > 0 AS sent;
CALL idle('by_hand');
SELECT state FROM djactor.actor WHERE actor_type = 'by_hand';
SELECT djactor.send('by_hand', 'h', '{"stop": true}') > 0 AS sent;
CALL idle('by_hand');
SELECT count(*) AS actors FROM djactor.actor WHERE actor_type = 'by_hand';

SELECT djactor.drop_actor_type('by_hand', true);
DROP FUNCTION lock_self;
DROP FUNCTION add_turn;
