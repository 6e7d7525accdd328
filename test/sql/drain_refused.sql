--
-- drain(): where and how it cannot be called.
-- Section 2 (test).
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
SELECT djactor.define_actor_type('refused', 'collect');
CREATE ROLE regress_dja_drainer LOGIN;

-- # Bad arguments
CALL fails($$SELECT djactor.drain(on_error => 'ignore')$$);
CALL fails($$SELECT djactor.drain(on_error => NULL)$$);
CALL fails($$SELECT djactor.drain(-1)$$);

-- # Under SET ROLE, and in a SECURITY DEFINER function of another role: handlers would not run as who is logged in
SET ROLE regress_dja_drainer;
CALL fails('SELECT djactor.drain()');
RESET ROLE;
CREATE FUNCTION as_drainer() RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN djactor.drain(); END';
ALTER FUNCTION as_drainer OWNER TO regress_dja_drainer;
CALL fails('SELECT as_drainer()');

-- # Types of other owners are left alone
SELECT djactor.define_actor_type('refused.other', 'collect', owner => 'regress_dja_drainer');
BEGIN;
SELECT djactor.send('refused.other', 'o') > 0 AS sent;
SELECT djactor.drain();
SELECT count(*) AS waiting FROM djactor.message WHERE actor_type = 'refused.other';
ROLLBACK;

-- # A transaction that drained cannot be prepared
BEGIN;
SELECT djactor.send('refused', 'r') > 0 AS sent;
SELECT djactor.drain();
PREPARE TRANSACTION 'regress_dja';
ROLLBACK;
SELECT count(*) FROM pg_prepared_xacts;

-- # (inside a turn: see misbehaviour)
SELECT djactor.drop_actor_type('refused', true), djactor.drop_actor_type('refused.other', true);
DROP FUNCTION as_drainer;
DROP ROLE regress_dja_drainer;
