--
-- A handler that cannot be called: mail waits, the reason is visible, and it runs once the handler is back.
-- Section 2 (actor_type.problem), section 3 points 6, 24 and 25.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
CREATE SCHEMA app;
GRANT USAGE ON SCHEMA app TO PUBLIC;
CREATE FUNCTION app.work(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT public.collect($1, $2)';
SELECT djactor.define_actor_type('gone', 'app.work');
SELECT djactor.send('gone', 'g', '1') > 0 AS sent;
CALL idle('gone');
SELECT problem FROM djactor.actor_type WHERE name = 'gone';

-- # Dropped while mail waits
SELECT djactor.pause('gone');
SELECT djactor.send('gone', 'g', '2') > 0 AS sent;
DROP FUNCTION app.work;
SELECT djactor.resume('gone');
SELECT djactor.send('gone', 'g', '3') > 0 AS sent;
CALL wait_until($$(SELECT problem IS NOT NULL FROM djactor.actor_type WHERE name = 'gone')$$);
SELECT problem FROM djactor.actor_type WHERE name = 'gone';
SELECT payload, attempts FROM djactor.message WHERE actor_type = 'gone' ORDER BY id;

-- # That mail is not idle
SELECT djactor.wait_idle('50 ms', 'gone');

-- # Other types of the same owner go on
SELECT djactor.define_actor_type('gone.not', 'collect');
SELECT djactor.send('gone.not', 'n', '1') > 0 AS sent;
CALL idle('gone.not');

-- # Back with a wrong result type it is no handler
CREATE FUNCTION app.work(state jsonb, message jsonb) RETURNS text LANGUAGE sql AS 'SELECT ''''';
CALL wait_until($$(SELECT problem LIKE '%must be%' FROM djactor.actor_type WHERE name = 'gone')$$);
SELECT problem FROM djactor.actor_type WHERE name = 'gone';
DROP FUNCTION app.work;

-- # Back as it should be, it handles what has waited, in order
CREATE FUNCTION app.work(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT public.collect($1, $2)';
CALL idle('gone');
SELECT state FROM djactor.actor WHERE actor_type = 'gone';
CALL wait_until($$(SELECT problem IS NULL FROM djactor.actor_type WHERE name = 'gone')$$);

-- # Renamed away: another handler can be named instead
ALTER SCHEMA app RENAME TO app_old;
SELECT djactor.send('gone', 'g', '4') > 0 AS sent;
CALL wait_until($$(SELECT problem IS NOT NULL FROM djactor.actor_type WHERE name = 'gone')$$);
SELECT problem FROM djactor.actor_type WHERE name = 'gone';
SELECT djactor.define_actor_type('gone', 'app_old.work');
CALL idle('gone');
SELECT state FROM djactor.actor WHERE actor_type = 'gone';
SELECT problem FROM djactor.actor_type WHERE name = 'gone';

-- # EXECUTE revoked from the owner
CREATE ROLE regress_dja_owner LOGIN;
CREATE FUNCTION app_old.guarded(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT public.collect($1, $2)';
SELECT djactor.define_actor_type('gone.rights', 'app_old.guarded', owner => 'regress_dja_owner');
SELECT djactor.send('gone.rights', 'r', '1') > 0 AS sent;
CALL idle('gone.rights');
REVOKE EXECUTE ON FUNCTION app_old.guarded FROM PUBLIC;
SELECT djactor.send('gone.rights', 'r', '2') > 0 AS sent;
CALL wait_until($$(SELECT problem IS NOT NULL FROM djactor.actor_type WHERE name = 'gone.rights')$$);
SELECT problem FROM djactor.actor_type WHERE name = 'gone.rights';
SELECT state FROM djactor.actor WHERE actor_type = 'gone.rights';
GRANT EXECUTE ON FUNCTION app_old.guarded TO regress_dja_owner;
CALL idle('gone.rights');
SELECT state FROM djactor.actor WHERE actor_type = 'gone.rights';

-- # ... or USAGE on its schema
REVOKE USAGE ON SCHEMA app_old FROM PUBLIC;
SELECT djactor.send('gone.rights', 'r', '3') > 0 AS sent;
CALL wait_until($$(SELECT problem IS NOT NULL FROM djactor.actor_type WHERE name = 'gone.rights')$$);
SELECT problem FROM djactor.actor_type WHERE name = 'gone.rights';
GRANT USAGE ON SCHEMA app_old TO PUBLIC;
CALL idle('gone.rights');
SELECT state FROM djactor.actor WHERE actor_type = 'gone.rights';

-- # Taken over: a function of another role under the handler's name is not run as the type's owner
CREATE ROLE regress_dja_intruder LOGIN;
GRANT USAGE, CREATE ON SCHEMA app_old TO regress_dja_intruder;
DROP FUNCTION app_old.guarded;
SET SESSION AUTHORIZATION regress_dja_intruder;
CREATE FUNCTION app_old.guarded(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS $$SELECT '"taken over"'::jsonb$$;
RESET SESSION AUTHORIZATION;
SELECT djactor.send('gone.rights', 'r', '4') > 0 AS sent;
CALL wait_until($$(SELECT problem IS NOT NULL FROM djactor.actor_type WHERE name = 'gone.rights')$$);
SELECT problem FROM djactor.actor_type WHERE name = 'gone.rights';
ALTER FUNCTION app_old.guarded OWNER TO regress_dja_owner;
CALL idle('gone.rights');
SELECT state FROM djactor.actor WHERE actor_type = 'gone.rights';
REVOKE ALL ON SCHEMA app_old FROM regress_dja_intruder;

-- # drain() says it at once
BEGIN;
SELECT djactor.send('gone', 'g', '5') > 0 AS sent;
DROP FUNCTION app_old.work;
CALL fails('SELECT djactor.drain()');
ROLLBACK;

SELECT count(djactor.drop_actor_type(name, true)) AS dropped FROM djactor.actor_type WHERE name LIKE 'gone%';
DROP FUNCTION app_old.work, app_old.guarded;
DROP SCHEMA app_old;
DROP ROLE regress_dja_owner, regress_dja_intruder;
