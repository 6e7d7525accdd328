--
-- Who may do what: nothing without a grant, and each handler runs as its type's owner.
-- Section 3 point 24, section 4.1.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
CREATE ROLE regress_dja_nobody LOGIN;
CREATE ROLE regress_dja_sender LOGIN;
CREATE ROLE regress_dja_owner LOGIN;
CREATE ROLE regress_dja_dbowner LOGIN;
SELECT djactor.define_actor_type('rights', 'collect');
SELECT djactor.send('rights', 'r', '1') > 0 AS sent;
CALL idle('rights');

-- # Without grants: nothing
SET SESSION AUTHORIZATION regress_dja_nobody;
CALL fails('SELECT count(*) FROM djactor.actor');
CALL fails('SELECT count(*) FROM djactor.message');
CALL fails('SELECT count(*) FROM djactor.actor_type');
CALL fails('SELECT count(*) FROM djactor.mailbox');
CALL fails('SELECT count(*) FROM djactor.worker');
CALL fails($$INSERT INTO djactor.message (actor_type, actor_key) VALUES ('rights', 'k')$$);
CALL fails($$SELECT djactor.send('rights', 'k')$$);
CALL fails($$SELECT djactor.define_actor_type('rights.mine', 'collect')$$);
CALL fails($$SELECT djactor.define_actor_type('rights', 'collect')$$);
CALL refused($$SELECT djactor.drop_actor_type('rights', true)$$);
CALL refused($$SELECT djactor.pause('rights')$$);
CALL refused($$SELECT djactor.resume('rights')$$);
CALL refused($$SELECT djactor.pause('rights', 'r')$$);
CALL refused($$SELECT djactor.resume('rights', 'r')$$);
CALL fails('DELETE FROM djactor.dead_letter');
RESET SESSION AUTHORIZATION;

-- # INSERT on three columns is enough to send
GRANT INSERT (actor_type, actor_key, payload) ON djactor.message TO regress_dja_sender;
SET SESSION AUTHORIZATION regress_dja_sender;
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('rights', 'r', '2');
CALL fails($$INSERT INTO djactor.message (actor_type, actor_key, priority) VALUES ('rights', 'r', 5)$$);
CALL fails($$INSERT INTO djactor.message (actor_type, actor_key, attempts) VALUES ('rights', 'r', 5)$$);
CALL fails($$INSERT INTO djactor.message (actor_type, actor_key, sender_key) VALUES ('rights', 'r', 'me')$$);
CALL fails($$INSERT INTO djactor.message (id, actor_type, actor_key) OVERRIDING SYSTEM VALUE VALUES (1, 'rights', 'r')$$);
CALL fails('SELECT count(*) FROM djactor.message');
RESET SESSION AUTHORIZATION;
CALL idle('rights');
SELECT state FROM djactor.actor WHERE actor_type = 'rights';

-- # send() asks for the same rights as its INSERT ... RETURNING id
SET SESSION AUTHORIZATION regress_dja_sender;
CALL fails($$SELECT djactor.send('rights', 'r', '3')$$);
RESET SESSION AUTHORIZATION;
GRANT INSERT (actor_type, actor_key, payload, headers, priority, deliver_at, expires_at), SELECT (id) ON djactor.message TO regress_dja_sender;
SET SESSION AUTHORIZATION regress_dja_sender;
SELECT djactor.send('rights', 'r', '3') > 0 AS sent;
RESET SESSION AUTHORIZATION;
CALL idle('rights');

-- # The handler runs as the owner of its type, logged in as that, whoever sends, and with the owner's rights alone
CREATE SCHEMA private AUTHORIZATION regress_dja_owner;
SET SESSION AUTHORIZATION regress_dja_owner;
CREATE TABLE private.seen (key text, "current_user" text, "session_user" text, superuser text, isolation text, read_only text);
CREATE FUNCTION private.look(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO private.seen VALUES ((djactor.self()).actor_key, current_user, session_user, current_setting('is_superuser'),
		current_setting('transaction_isolation'), current_setting('transaction_read_only'));
	IF message ? 'read' THEN
		EXECUTE 'SELECT count(*) FROM ' || (message ->> 'read');
	END IF;
	RETURN state;
END $$;
RESET SESSION AUTHORIZATION;
CREATE TABLE public.secret (n int);
SELECT djactor.define_actor_type('rights.owner', 'private.look', owner => 'regress_dja_owner', max_attempts => 1);
SELECT djactor.send('rights.owner', 'by superuser') > 0 AS sent;
SET SESSION AUTHORIZATION regress_dja_sender;
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('rights.owner', 'by sender', '{}'), ('rights.owner', 'secret', '{"read": "public.secret"}');
RESET SESSION AUTHORIZATION;
CALL idle('rights.owner');
SELECT * FROM private.seen ORDER BY key;
SELECT actor_key, sqlstate, error FROM djactor.dead_letter WHERE actor_type = 'rights.owner';

-- # Settings of the owner apply, but not to what the contract needs
ALTER ROLE regress_dja_owner SET default_transaction_read_only = on;
ALTER ROLE regress_dja_owner SET default_transaction_isolation = 'serializable';
ALTER ROLE regress_dja_owner SET role = 'regress_dja_nobody';
TRUNCATE private.seen;
SELECT djactor.send('rights.owner', 'odd settings') > 0 AS sent;
CALL idle('rights.owner');
SELECT * FROM private.seen ORDER BY key;

-- # A role that may define does it for itself, and for nobody that it cannot become
GRANT EXECUTE ON FUNCTION djactor.define_actor_type TO regress_dja_owner;
SET SESSION AUTHORIZATION regress_dja_owner;
SELECT djactor.define_actor_type('rights.mine', 'private.look');
CALL refused($$SELECT djactor.define_actor_type('rights.theirs', 'collect', owner => 'regress_dja_sender')$$);
CALL refused($$SELECT djactor.define_actor_type('rights', 'private.look')$$);
SELECT djactor.pause('rights.mine');
SELECT djactor.resume('rights.mine');
SELECT djactor.drop_actor_type('rights.mine');
RESET SESSION AUTHORIZATION;
SELECT name, owner FROM djactor.actor_type WHERE name LIKE 'rights.%' ORDER BY 1;

-- # The database's owner may do all that an operator does, whoever that is
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I OWNER TO regress_dja_dbowner', current_database()); END $$;
SET SESSION AUTHORIZATION regress_dja_dbowner;
SELECT count(*) > 0 AS reads_actors FROM djactor.actor;
SELECT count(*) > 0 AS reads_workers FROM djactor.worker;
UPDATE djactor.actor SET state = '["by the owner"]' WHERE actor_type = 'rights';
CALL fails('UPDATE djactor.actor SET turns = 0');
CALL fails($$INSERT INTO djactor.actor_type (name) VALUES ('x')$$);
CALL fails('TRUNCATE djactor.message');
CALL fails('CREATE TRIGGER t AFTER INSERT ON djactor.message EXECUTE FUNCTION suppress_redundant_updates_trigger()');
CALL fails('ALTER TABLE djactor.message DISABLE TRIGGER ALL');
CALL fails('DROP TABLE djactor.message');
CALL fails('CREATE TABLE djactor.x ()');
DELETE FROM djactor.dead_letter WHERE actor_type = 'rights.owner';
SELECT djactor.send('rights', 'r', '4') > 0 AS sent;
SELECT djactor.define_actor_type('rights.dbowner', 'public.collect');
INSERT INTO djactor.message (actor_type, actor_key, payload, headers, priority, deliver_at, expires_at, trace_id)
VALUES ('rights.dbowner', 'd', '1', '{}', 1, NULL, NULL, gen_random_uuid()) RETURNING actor_key;
CALL idle('rights.dbowner');
SELECT state FROM djactor.actor WHERE actor_type = 'rights.dbowner';
SELECT djactor.drop_actor_type('rights.dbowner', true);
RESET SESSION AUTHORIZATION;
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I OWNER TO %I', current_database(), current_user); END $$;
CALL idle('rights');
SELECT state FROM djactor.actor WHERE actor_type = 'rights';

SELECT djactor.drop_actor_type('rights', true), djactor.drop_actor_type('rights.owner', true);
DROP TABLE secret;
SET client_min_messages = warning;
DROP SCHEMA private CASCADE;
DROP OWNED BY regress_dja_nobody, regress_dja_sender, regress_dja_owner, regress_dja_dbowner;
DROP ROLE regress_dja_nobody, regress_dja_sender, regress_dja_owner, regress_dja_dbowner;
