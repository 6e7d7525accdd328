--
-- Contract 24: handlers run as the type's owner, in a session that logged in as that role: not as who sent, not as a superuser
-- unless the owner is one. Nothing that fires at commit runs as anybody else. (ALTER ROLE, roles that come and go: test/t/009_rights.pl)
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql

SET client_min_messages = warning;
DROP ROLE IF EXISTS regress_c24;
RESET client_min_messages;
CREATE ROLE regress_c24 LOGIN;
CREATE TABLE who (at text, role name, session name, superuser text);
CREATE TABLE target (id int);
GRANT INSERT ON who, target TO regress_c24;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO who VALUES (TG_ARGV[0], current_user, session_user, current_setting('is_superuser'));
	RETURN NULL;
END $$;
CREATE TRIGGER at_once AFTER INSERT ON target FOR EACH ROW EXECUTE FUNCTION note('trigger');
CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON target DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note('deferred trigger');
CREATE FUNCTION c24(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO who VALUES ('handler', current_user, session_user, current_setting('is_superuser'));
	INSERT INTO target VALUES (1);
	IF message ? 'run' THEN
		EXECUTE message ->> 'run';
	END IF;
	RETURN state;
END $$;
SELECT djactor.define_actor_type('c24', 'c24', owner => 'regress_c24', max_attempts => 1), djactor.define_actor_type('c24.other', 'c24');

-- # Sent by a superuser, handled by the owner
SELECT djactor.send('c24', 'a') > 0 AS sent;
CALL idle('c24');
SELECT DISTINCT at, role, session, superuser FROM who ORDER BY 1;

-- # What the owner may not do, its handlers may not do
INSERT INTO djactor.message (actor_type, actor_key, payload) SELECT 'c24', 'a', jsonb_build_object('run', what) FROM (VALUES
	('SET ROLE pg_read_all_data'), ('SELECT count(*) FROM pg_authid'), ('DELETE FROM djactor.message'), ('UPDATE djactor.actor SET state = NULL'),
	('COPY who FROM PROGRAM ''true'''), ('CREATE ROLE regress_c24_more'), ('SELECT djactor.pause(''c24.other'')')) v (what);
SET SESSION AUTHORIZATION regress_c24;
CALL refused('SELECT count(*) FROM djactor.actor');
RESET SESSION AUTHORIZATION;
CALL idle('c24');
SELECT payload ->> 'run' AS what, sqlstate FROM djactor.dead_letter WHERE actor_type = 'c24' ORDER BY id;

-- # Nobody may have handlers run as a role that he could not act for
SET SESSION AUTHORIZATION regress_c24;
CALL refused($$SELECT djactor.define_actor_type('c24.more', 'c24')$$);
RESET SESSION AUTHORIZATION;
GRANT EXECUTE ON FUNCTION djactor.define_actor_type TO regress_c24;
SET SESSION AUTHORIZATION regress_c24;
SELECT djactor.define_actor_type('c24.more', 'c24');
SELECT format($$SELECT djactor.define_actor_type('c24.more', 'c24', owner => %L)$$, rolname) AS as_superuser FROM pg_roles WHERE oid = 10 \gset
CALL refused(:'as_superuser');
RESET SESSION AUTHORIZATION;

SELECT djactor.drop_actor_type('c24', true), djactor.drop_actor_type('c24.more', true), djactor.drop_actor_type('c24.other');
DELETE FROM djactor.dead_letter WHERE actor_type = 'c24';
DROP TABLE who, target;
DROP FUNCTION c24, note;
DROP OWNED BY regress_c24;
DROP ROLE regress_c24;
