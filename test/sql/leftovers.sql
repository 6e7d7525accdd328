--
-- What a handler leaves behind: the next turn sees none of it, in the same batch or a later one.
-- Section 3 points 7, 11 and 24; section 4.1 (a worker's session).
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
CREATE ROLE regress_dja_somebody;
CREATE TABLE about (id int PRIMARY KEY);
CREATE TABLE referring (id int REFERENCES about DEFERRABLE INITIALLY DEFERRED);

-- do runs a statement, look collects the result of a query
CREATE FUNCTION untidy(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	IF message ? 'do' THEN
		EXECUTE message ->> 'do';
	END IF;
	IF message ? 'look' THEN
		EXECUTE message ->> 'look' INTO result;
		RETURN public.collect(state, to_jsonb(result));
	END IF;
	RETURN state;
END $$;
SELECT djactor.define_actor_type('untidy', 'untidy', max_attempts => 1);

-- leaves(do, look): a turn looks, the next one does it and looks, two more look in the same batch, then
-- one in a batch of its own. Shows what each has seen.
CREATE PROCEDURE leaves(INOUT what text, look text, OUT before text, OUT during text, OUT same_batch text, OUT later text)
LANGUAGE plpgsql AS $$
DECLARE
	key text := md5(what);
	seen jsonb;
BEGIN
	PERFORM djactor.pause('untidy');
	INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES
		('untidy', key, jsonb_build_object('look', look)),
		('untidy', key, jsonb_build_object('do', what, 'look', look)),
		('untidy', key, jsonb_build_object('look', look)),
		('untidy', key, jsonb_build_object('look', look));
	PERFORM djactor.resume('untidy');
	COMMIT;
	CALL idle('untidy');
	PERFORM djactor.send('untidy', key, jsonb_build_object('look', look));
	COMMIT;
	CALL idle('untidy');
	SELECT state INTO seen FROM djactor.actor WHERE actor_type = 'untidy' AND actor_key = key;
	before := seen ->> 0;
	during := seen ->> 1;
	same_batch := (seen ->> 2) || ' ' || (seen ->> 3);
	later := seen ->> 4;
END $$;

-- # Settings
CALL leaves('SET work_mem = ''3MB''', 'SHOW work_mem', NULL, NULL, NULL, NULL);
CALL leaves('SET LOCAL work_mem = ''5MB''', 'SHOW work_mem', NULL, NULL, NULL, NULL);
CALL leaves('SELECT set_config(''my.setting'', ''kept'', false)', $$SELECT COALESCE(NULLIF(current_setting('my.setting', true), ''), 'none')$$, NULL, NULL, NULL, NULL);
CALL leaves('SET search_path = pg_catalog', 'SELECT to_regclass(''about'') IS NOT NULL', NULL, NULL, NULL, NULL);
CALL leaves('SET session_replication_role = replica', 'SHOW session_replication_role', NULL, NULL, NULL, NULL);
CALL leaves('SET default_transaction_read_only = on', 'SHOW default_transaction_read_only', NULL, NULL, NULL, NULL);
CALL leaves('RESET ALL', $$SELECT current_setting('application_name') || ', ' || current_setting('default_transaction_isolation')$$, NULL, NULL, NULL, NULL);

-- # Roles
CALL leaves('SET ROLE regress_dja_somebody', 'SELECT current_user = session_user', NULL, NULL, NULL, NULL);
CALL leaves('SET SESSION AUTHORIZATION regress_dja_somebody', 'SELECT session_user <> ''regress_dja_somebody''', NULL, NULL, NULL, NULL);

-- # Objects of the session
CALL leaves('CREATE TEMP TABLE leftover (n int)', 'SELECT to_regclass(''pg_temp.leftover'') IS NOT NULL', NULL, NULL, NULL, NULL);
CALL leaves('CREATE TEMP TABLE leftover ON COMMIT DROP AS SELECT 1', 'SELECT to_regclass(''pg_temp.leftover'') IS NOT NULL', NULL, NULL, NULL, NULL);
CALL leaves('PREPARE leftover AS SELECT 1', 'SELECT count(*) FROM pg_prepared_statements WHERE name = ''leftover''', NULL, NULL, NULL, NULL);
CALL leaves('DECLARE leftover CURSOR WITH HOLD FOR SELECT 1', 'SELECT count(*) FROM pg_cursors WHERE name = ''leftover''', NULL, NULL, NULL, NULL);
CALL leaves('DECLARE leftover CURSOR FOR SELECT 1', 'SELECT count(*) FROM pg_cursors WHERE name = ''leftover''', NULL, NULL, NULL, NULL);
CALL leaves('SELECT pg_advisory_lock(4711)', 'SELECT count(*) FROM pg_locks WHERE locktype = ''advisory'' AND objid = 4711', NULL, NULL, NULL, NULL);
SELECT pg_try_advisory_lock(4711) AS free, pg_advisory_unlock(4711);

-- # Deferred constraints are deferred again
CREATE FUNCTION impatient(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF message = '"immediate"' THEN
		SET CONSTRAINTS ALL IMMEDIATE;
		RETURN public.collect(state, message);
	END IF;
	INSERT INTO referring VALUES (message::int);
	INSERT INTO about VALUES (message::int);
	RETURN public.collect(state, message);
END $$;
SELECT djactor.define_actor_type('untidy.constraints', 'impatient', max_attempts => 1);
SELECT djactor.pause('untidy.constraints');
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES
	('untidy.constraints', 'c', '1'), ('untidy.constraints', 'c', '"immediate"'), ('untidy.constraints', 'c', '2'), ('untidy.constraints', 'd', '3');
SELECT djactor.resume('untidy.constraints');
CALL idle('untidy.constraints');
SELECT djactor.send('untidy.constraints', 'c', '4') > 0 AS sent;
CALL idle('untidy.constraints');
SELECT actor_key, state FROM djactor.actor WHERE actor_type = 'untidy.constraints' ORDER BY 1;

-- # None of it made anybody's message fail
SELECT payload, sqlstate, error FROM djactor.dead_letter WHERE actor_type LIKE 'untidy%';

SELECT djactor.drop_actor_type('untidy', true), djactor.drop_actor_type('untidy.constraints', true);
DROP TABLE referring, about;
DROP PROCEDURE leaves;
DROP FUNCTION untidy, impatient;
DROP ROLE regress_dja_somebody;
