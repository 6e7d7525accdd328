--
-- Versions of the state: an older one is upgraded before the first message, a newer one waits.
-- Section 2 (state_version, upgrade_handler), section 3 point 22.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
CREATE TABLE upgraded (actor_key text, from_version int, by_role text, at_message jsonb);
CREATE FUNCTION upgrade(state jsonb, from_version int) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO upgraded SELECT (djactor.self()).actor_key, from_version, current_user, (djactor.message()).payload;
	IF state ? 'null' THEN
		RETURN NULL;
	ELSIF state ? 'error' THEN
		RAISE EXCEPTION 'cannot upgrade this';
	END IF;
	RETURN jsonb_build_object('list', state, 'from', from_version);
END $$;
CREATE FUNCTION handle2(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_set(state, '{list}', state->'list' || message) $$;
SELECT djactor.define_actor_type('version', 'collect');
SELECT djactor.send('version', key, '1') > 0 AS sent FROM unnest('{a,b,c}'::text[]) key;
CALL idle('version');
SELECT actor_key, state, state_version FROM djactor.actor WHERE actor_type = 'version' ORDER BY 1;

-- # A new version changes nothing until an actor's next message; then its state is upgraded once, before it
SELECT djactor.define_actor_type('version', 'handle2', initial_state => '{"list": []}', state_version => 3, upgrade_handler => 'upgrade');
SELECT upgrade_handler FROM djactor.actor_type WHERE name = 'version';
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('version', 'a', '2'), ('version', 'a', '3'), ('version', 'new', '1');
CALL idle('version');
SELECT actor_key, state, state_version, turns FROM djactor.actor WHERE actor_type = 'version' ORDER BY 1;
SELECT actor_key, from_version, by_role = current_user AS by_owner, at_message FROM upgraded;

-- # drain() does the same
BEGIN;
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('version', 'b', '2'), ('version', 'b', '3');
SELECT djactor.drain();
SELECT state, state_version FROM djactor.actor WHERE actor_type = 'version' AND actor_key = 'b';
SELECT count(*) AS upgrades FROM upgraded;
ROLLBACK;

-- # An upgrade that fails, or returns NULL, fails the turn: retried, then the message is given up, and the state is what it was
SELECT djactor.define_actor_type('version.fails', 'handle2', initial_state => '{"error": 1}');
SELECT djactor.define_actor_type('version.null', 'handle2', initial_state => '{"null": 1}');
CREATE FUNCTION nothing(state jsonb, message jsonb) RETURNS void LANGUAGE sql AS '';
SELECT djactor.define_actor_type('version.fails', 'nothing', initial_state => '{"error": 1}'), djactor.define_actor_type('version.null', 'nothing', initial_state => '{"null": 1}');
SELECT djactor.send(type, 'x', '1') > 0 AS sent FROM unnest('{version.fails,version.null}'::text[]) type;
CALL idle('version.fails');
CALL idle('version.null');
SELECT djactor.define_actor_type(type, 'handle2', state_version => 2, upgrade_handler => 'public.upgrade(jsonb, int)', max_attempts => 2, backoff => '1 ms') FROM unnest('{version.fails,version.null}'::text[]) type;
SELECT djactor.send(type, 'x', '2') > 0 AS sent FROM unnest('{version.fails,version.null}'::text[]) type;
CALL idle('version.fails');
CALL idle('version.null');
SELECT actor_type, reason, attempts, sqlstate, error FROM djactor.dead_letter WHERE actor_type LIKE 'version.%' ORDER BY 1;
SELECT actor_type, state, state_version, turns FROM djactor.actor WHERE actor_type LIKE 'version.%' ORDER BY 1;
SELECT count(*) AS failed_upgrades FROM upgraded WHERE actor_key = 'x';

-- # Without an upgrade handler the state is taken as it is
SELECT djactor.define_actor_type('version.none', 'collect'), djactor.send('version.none', 'x', '1') > 0 AS sent;
CALL idle('version.none');
SELECT djactor.define_actor_type('version.none', 'collect', state_version => 2), djactor.send('version.none', 'x', '2') > 0 AS sent;
CALL idle('version.none');
SELECT state, state_version FROM djactor.actor WHERE actor_type = 'version.none';

-- # An actor that is newer than its type waits, and nothing of it is handled; it is idle; others go on
SELECT djactor.define_actor_type('version', 'collect', state_version => 2);
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('version', 'a', '4'), ('version', 'c', '4');
CALL wait_until($$(SELECT turns FROM djactor.actor WHERE actor_type = 'version' AND actor_key = 'c') = 2$$);
CALL idle('version');
SELECT actor_key, state, state_version, turns FROM djactor.actor WHERE actor_type = 'version' ORDER BY 1;
SELECT actor_key, payload, attempts FROM djactor.message WHERE actor_type = 'version';
BEGIN;
SELECT djactor.drain();
ROLLBACK;

-- # Defined with its version again, it goes on
SELECT djactor.define_actor_type('version', 'handle2', state_version => 3, upgrade_handler => 'upgrade');
CALL wait_until($$NOT EXISTS (SELECT FROM djactor.message WHERE actor_type = 'version')$$);
SELECT state, state_version, turns FROM djactor.actor WHERE actor_type = 'version' AND actor_key = 'a';

-- # The upgrade handler is checked as the handler is
CALL fails($$SELECT djactor.define_actor_type('version', 'handle2', upgrade_handler => 'no_such_function')$$);
CALL fails($$SELECT djactor.define_actor_type('version', 'handle2', upgrade_handler => 'handle2')$$);
CALL fails($$SELECT djactor.define_actor_type('version', 'handle2', upgrade_handler => 'upgrade(jsonb, jsonb)')$$);
CREATE FUNCTION upgrade_void(state jsonb, from_version int) RETURNS void LANGUAGE sql AS '';
CALL fails($$SELECT djactor.define_actor_type('version', 'handle2', upgrade_handler => 'upgrade_void')$$);
CREATE ROLE version_owner LOGIN;
CREATE ROLE version_library;
CREATE SCHEMA version_app AUTHORIZATION version_owner;
GRANT USAGE, CREATE ON SCHEMA version_app TO version_library;
GRANT USAGE ON SCHEMA djactor TO version_owner;
CREATE FUNCTION version_app.handle(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT state || message';
CREATE FUNCTION version_app.upgrade(state jsonb, from_version int) RETURNS jsonb LANGUAGE sql AS $$SELECT jsonb_build_array(current_user, from_version)$$;
REVOKE EXECUTE ON FUNCTION version_app.upgrade FROM PUBLIC;
CALL fails($$SELECT djactor.define_actor_type('version.owned', 'version_app.handle', upgrade_handler => 'version_app.upgrade', owner => 'version_owner')$$);
GRANT EXECUTE ON FUNCTION version_app.upgrade TO version_owner;

-- # It has to belong to whom the handler belongs, to the type's owner, or to a superuser
ALTER FUNCTION version_app.upgrade OWNER TO version_library;
CALL fails($$SELECT djactor.define_actor_type('version.owned', 'version_app.handle', upgrade_handler => 'version_app.upgrade', owner => 'version_owner')$$);
ALTER FUNCTION version_app.upgrade OWNER TO version_owner;

-- # It runs as the type's owner; as long as it cannot be called the mail waits
SELECT djactor.define_actor_type('version.owned', 'version_app.handle', initial_state => '[]', owner => 'version_owner');
SELECT djactor.send('version.owned', 'x', '1') > 0 AS sent;
CALL idle('version.owned');
SELECT djactor.define_actor_type('version.owned', 'version_app.handle', initial_state => '[]', state_version => 2, upgrade_handler => 'version_app.upgrade', owner => 'version_owner');
ALTER FUNCTION version_app.upgrade RENAME TO away;
SELECT djactor.send('version.owned', 'x', '2') > 0 AS sent;
CALL wait_until($$(SELECT problem IS NOT NULL FROM djactor.actor_type WHERE name = 'version.owned')$$);
SELECT problem FROM djactor.actor_type WHERE name = 'version.owned';
ALTER FUNCTION version_app.away RENAME TO upgrade;
CALL idle('version.owned');
SELECT state, problem FROM djactor.actor JOIN djactor.actor_type ON name = actor_type WHERE actor_type = 'version.owned';

SELECT count(djactor.drop_actor_type(name, true)) AS dropped FROM djactor.actor_type WHERE name LIKE 'version%';
DROP FUNCTION upgrade, upgrade_void, handle2, nothing;
DROP TABLE upgraded;
DROP FUNCTION version_app.handle, version_app.upgrade;
DROP SCHEMA version_app;
REVOKE USAGE ON SCHEMA djactor FROM version_owner;
DROP ROLE version_owner, version_library;
