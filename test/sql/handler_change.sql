--
-- A changed handler is picked up by the next batch, without a restart.
-- Section 3 points 22 and 25.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
CREATE FUNCTION versioned(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS $$SELECT collect($1, '"one"')$$;
SELECT djactor.define_actor_type('change', 'versioned');
SELECT djactor.send('change', 'c') > 0 AS sent;
CALL idle('change');

-- # CREATE OR REPLACE, another language included
CREATE OR REPLACE FUNCTION versioned(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS $$SELECT collect($1, '"two"')$$;
SELECT djactor.send('change', 'c') > 0 AS sent;
CALL idle('change');
CREATE OR REPLACE FUNCTION versioned(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$BEGIN RETURN collect(state, '"three"'); END$$;
SELECT djactor.send('change', 'c') > 0 AS sent;
CALL idle('change');

-- # Dropped and created again, with another kind of result
DROP FUNCTION versioned(jsonb, jsonb);
CREATE FUNCTION versioned(state jsonb, message jsonb) RETURNS void LANGUAGE sql AS '';
SELECT djactor.send('change', 'c') > 0 AS sent;
CALL idle('change');

-- # Another function, by defining again
CREATE FUNCTION other_version(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS $$SELECT collect($1, '"other"')$$;
SELECT djactor.define_actor_type('change', 'other_version');
SELECT djactor.send('change', 'c') > 0 AS sent;
CALL idle('change');

-- # A function that the handler calls
CREATE FUNCTION word() RETURNS jsonb LANGUAGE sql AS $$SELECT '"before"'::jsonb$$;
CREATE OR REPLACE FUNCTION other_version(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$BEGIN RETURN collect(state, word()); END$$;
SELECT djactor.send('change', 'c') > 0 AS sent;
CALL idle('change');
CREATE OR REPLACE FUNCTION word() RETURNS jsonb LANGUAGE sql AS $$SELECT '"behind"'::jsonb$$;
SELECT djactor.send('change', 'c') > 0 AS sent;
CALL idle('change');

-- # Settings of the function are honoured, and end with the turn
CREATE OR REPLACE FUNCTION other_version(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql SET work_mem = '7MB' AS
	$$BEGIN RETURN collect(state, to_jsonb(current_setting('work_mem'))); END$$;
SELECT djactor.send('change', 'c') > 0 AS sent;
CALL idle('change');
SELECT state, turns FROM djactor.actor WHERE actor_type = 'change';

-- # SECURITY DEFINER, and back
CREATE ROLE regress_dja_definer LOGIN;
CREATE OR REPLACE FUNCTION other_version(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS
	$$BEGIN RETURN collect(state, to_jsonb(current_user = session_user)); END$$;
SELECT djactor.define_actor_type('change.definer', 'other_version', owner => 'regress_dja_definer');
SELECT djactor.send('change.definer', 'd') > 0 AS sent;
CALL idle('change.definer');
ALTER FUNCTION other_version SECURITY DEFINER;
SELECT djactor.send('change.definer', 'd') > 0 AS sent;
CALL idle('change.definer');
ALTER FUNCTION other_version SECURITY INVOKER;
SELECT djactor.send('change.definer', 'd') > 0 AS sent;
CALL idle('change.definer');
SELECT state, turns FROM djactor.actor WHERE actor_type = 'change.definer';

-- # Options too
CREATE FUNCTION fail(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END';
SELECT djactor.define_actor_type('change.options', 'fail', backoff => '1 h');
SELECT djactor.send('change.options', 'o') > 0 AS sent;
CALL wait_until($$(SELECT attempts = 1 FROM djactor.message WHERE actor_type = 'change.options')$$);
SELECT djactor.define_actor_type('change.options', 'fail', max_attempts => 1);
SELECT djactor.send('change.options', 'p') > 0 AS sent;
CALL wait_until($$EXISTS (SELECT FROM djactor.dead_letter WHERE actor_type = 'change.options')$$);
SELECT actor_key, attempts FROM djactor.dead_letter WHERE actor_type = 'change.options';

DELETE FROM djactor.dead_letter WHERE actor_type LIKE 'change%';
SELECT djactor.drop_actor_type('change', true), djactor.drop_actor_type('change.options', true), djactor.drop_actor_type('change.definer', true);
DROP FUNCTION versioned, other_version, word, fail;
DROP ROLE regress_dja_definer;

-- # What a role or a database has set for its sessions is seen without a reload()
CREATE FUNCTION sees(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS $$SELECT to_jsonb(coalesce(current_setting('shop.tenant', true), ''))$$;
SELECT djactor.define_actor_type('sees', 'sees');
CREATE PROCEDURE seen(key text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM djactor.send('sees', key);
	COMMIT;
	CALL idle('sees');
END $$;
CALL seen('0 nothing');
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET shop.tenant = %L', current_database(), 'database'); END $$;
CALL seen('1 database');
ALTER ROLE CURRENT_USER SET shop.tenant = 'role';
CALL seen('2 role');
DO $$ BEGIN EXECUTE format('ALTER ROLE CURRENT_USER IN DATABASE %I SET shop.tenant = %L', current_database(), 'both'); END $$;
CALL seen('3 role in database');
BEGIN;
ALTER ROLE CURRENT_USER RESET ALL;
ROLLBACK;
CALL seen('4 rolled back');
ALTER ROLE CURRENT_USER RESET ALL;
DO $$ BEGIN EXECUTE format('ALTER ROLE CURRENT_USER IN DATABASE %I RESET ALL', current_database()); EXECUTE format('ALTER DATABASE %I RESET shop.tenant', current_database()); END $$;
CALL seen('5 none again');
SELECT actor_key, state FROM djactor.actor WHERE actor_type = 'sees' ORDER BY 1;
