--
-- define_actor_type(): what is refused, with which SQLSTATE and hint.
-- Section 2 (define), section 4.1 (owners).
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
CREATE ROLE regress_dja_nologin NOLOGIN;
CREATE ROLE regress_dja_plain LOGIN;

-- # Name
CALL fails($$SELECT djactor.define_actor_type('', 'collect')$$);
CALL fails($$SELECT djactor.define_actor_type(repeat('x', 256), 'collect')$$);
CALL fails($$SELECT djactor.define_actor_type(NULL, 'collect')$$);

-- # Options
CALL fails($$SELECT djactor.define_actor_type('bad', 'collect', initial_state => NULL)$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'collect', max_attempts => 0)$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'collect', max_attempts => NULL)$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'collect', backoff => '-1 s')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'collect', backoff_max => '-1 s')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'collect', backoff_max => '-178000000 years')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'collect', backoff_max => '2562047788 hours')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'collect', handler_timeout => '-1 s')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'collect', batch_size => 0)$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'collect', concurrency => 0)$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'collect', mailbox_limit => -5)$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'collect', retry_order => 'random')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'collect', on_exhausted => 'ignore')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'collect', on_full => 'block')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'collect', no_such_option => 1)$$);

-- # Handler
CREATE FUNCTION bad_arguments(state jsonb, message json) RETURNS jsonb LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION bad_result(state jsonb, message jsonb) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION bad_set(state jsonb, message jsonb) RETURNS SETOF jsonb LANGUAGE sql AS 'SELECT $1';
CREATE PROCEDURE bad_procedure(state jsonb, message jsonb) LANGUAGE sql AS '';
CREATE FUNCTION secret(state jsonb, message jsonb) RETURNS void LANGUAGE sql AS '';
REVOKE EXECUTE ON FUNCTION secret FROM PUBLIC;
CREATE SCHEMA hidden;
CREATE FUNCTION hidden.handler(state jsonb, message jsonb) RETURNS void LANGUAGE sql AS '';
CALL fails($$SELECT djactor.define_actor_type('bad', NULL)$$);
CALL fails($$SELECT djactor.define_actor_type('bad', '')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'a..b')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'collect', upgrade_handler => '"open')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'no_such_function')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'no_such_schema.handler')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'collect(text, text)')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'collect(jsonb')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'a.b.c.d')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'bad_arguments')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'bad_result')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'bad_set')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'bad_procedure')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'secret', owner => 'regress_dja_plain')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'hidden.handler', owner => 'regress_dja_plain')$$);

-- # Owner: somebody who can log in here
CALL fails($$SELECT djactor.define_actor_type('bad', 'collect', owner => NULL)$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'collect', owner => 'regress_dja_nologin')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'collect', owner => 'pg_monitor')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'collect', owner => 'pg_database_owner')$$);
CALL fails($$SELECT djactor.define_actor_type('bad', 'collect', owner => 4000000000::oid::regrole)$$);
DO $$ BEGIN EXECUTE format('REVOKE CONNECT ON DATABASE %I FROM PUBLIC', current_database()); END $$;
CALL fails($$SELECT djactor.define_actor_type('bad', 'collect', owner => 'regress_dja_plain')$$);
DO $$ BEGIN EXECUTE format('GRANT CONNECT ON DATABASE %I TO PUBLIC', current_database()); END $$;

-- # None of them left a type behind
SELECT count(*) FROM djactor.actor_type WHERE name = 'bad' OR name = '' OR name LIKE 'xxx%';

DROP FUNCTION bad_arguments, bad_result, bad_set, secret;
DROP PROCEDURE bad_procedure;
DROP SCHEMA hidden CASCADE;
DROP ROLE regress_dja_nologin, regress_dja_plain;
