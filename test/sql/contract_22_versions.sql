--
-- Contract 22: each turn runs one version of its handler. A state with an older state_version goes through upgrade_handler
-- before its first message; an actor that is newer than its type waits.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql

-- version 1 counts n, version 2 calls it count, version 3 wraps it
CREATE FUNCTION c22_v1(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS $$SELECT jsonb_build_object('n', (state -> 'n')::int + 1)$$;
CREATE FUNCTION c22_v3(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS
	$$SELECT jsonb_set(state, '{v3,count}', to_jsonb((state -> 'v3' -> 'count')::int + 1))$$;
CREATE FUNCTION c22_upgrade(state jsonb, from_version int) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF from_version < 2 THEN
		state := jsonb_build_object('count', state -> 'n');
	END IF;
	RETURN jsonb_build_object('v3', state, 'upgraded from', from_version);
END $$;
SELECT djactor.define_actor_type('c22', 'c22_v1', initial_state => '{"n": 0}');
INSERT INTO djactor.message (actor_type, actor_key) SELECT 'c22', key FROM unnest('{old,old,older}'::text[]) key;
CALL idle('c22');
SELECT actor_key, state, state_version FROM djactor.actor WHERE actor_type = 'c22' ORDER BY 1;

-- # A new version, with mail: the state is upgraded once, before the first message
SELECT djactor.define_actor_type('c22', 'c22_v3', state_version => 3, upgrade_handler => 'c22_upgrade', initial_state => '{"v3": {"count": 0}}');
INSERT INTO djactor.message (actor_type, actor_key) SELECT 'c22', key FROM unnest('{old,old,fresh}'::text[]) key;
CALL idle('c22');
SELECT actor_key, state, state_version FROM djactor.actor WHERE actor_type = 'c22' ORDER BY 1;

-- # Back to the old version: who is newer waits and keeps its mail; who is not goes on
SELECT djactor.define_actor_type('c22', 'c22_v1', initial_state => '{"n": 0}');
INSERT INTO djactor.message (actor_type, actor_key) SELECT 'c22', key FROM unnest('{old,fresh,older}'::text[]) key;
CALL wait_until($$(SELECT turns FROM djactor.actor WHERE actor_type = 'c22' AND actor_key = 'older') = 2$$);
SELECT djactor.wait_idle('100 ms', 'c22');
SELECT actor_key, state, state_version FROM djactor.actor WHERE actor_type = 'c22' ORDER BY 1;
SELECT actor_key, attempts FROM djactor.message WHERE actor_type = 'c22' ORDER BY id;

-- # Rolled forward: nothing was lost
SELECT djactor.define_actor_type('c22', 'c22_v3', state_version => 3, upgrade_handler => 'c22_upgrade');
CALL idle('c22');
SELECT actor_key, state, state_version FROM djactor.actor WHERE actor_type = 'c22' ORDER BY 1;

-- # An upgrade that fails is a failed turn, and changes nothing
CREATE OR REPLACE FUNCTION c22_upgrade(state jsonb, from_version int) RETURNS jsonb LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION $$cannot upgrade$$; END';
SELECT djactor.define_actor_type('c22', 'c22_v3', state_version => 4, upgrade_handler => 'c22_upgrade', max_attempts => 1);
SELECT djactor.send('c22', 'old') > 0 AS sent;
CALL idle('c22');
SELECT state, state_version, failures FROM djactor.actor WHERE actor_type = 'c22' AND actor_key = 'old';
SELECT reason, error FROM djactor.dead_letter WHERE actor_type = 'c22';

SELECT djactor.drop_actor_type('c22', true);
DELETE FROM djactor.dead_letter WHERE actor_type = 'c22';
DROP FUNCTION c22_v1, c22_v3, c22_upgrade;
