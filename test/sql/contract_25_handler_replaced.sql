--
-- Contract 25: a change of the handler, by CREATE OR REPLACE or by defining the type again, is picked up by the next batch,
-- without a restart and without a reconnect.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql

CREATE FUNCTION c25(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS 'BEGIN RETURN collect(state, $$"first"$$); END';
CREATE FUNCTION c25_other(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT collect($1, to_jsonb(pg_backend_pid()))';
SELECT djactor.define_actor_type('c25', 'c25', initial_state => '[]', concurrency => 1);
SELECT djactor.send('c25', 'a') > 0 AS sent;
CALL idle('c25');

-- # Replaced, in PL/pgSQL and by another language
CREATE OR REPLACE FUNCTION c25(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS 'BEGIN RETURN collect(state, $$"second"$$); END';
SELECT djactor.send('c25', 'a') > 0 AS sent;
CALL idle('c25');
CREATE OR REPLACE FUNCTION c25(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT collect($1, $$"third"$$)';
SELECT djactor.send('c25', 'a') > 0 AS sent;
CALL idle('c25');

-- # Defined again with another function
SELECT djactor.define_actor_type('c25', 'c25_other', initial_state => '[]', concurrency => 1);
SELECT djactor.send('c25', 'a') > 0 AS sent;
CALL idle('c25');
SELECT djactor.define_actor_type('c25', 'c25', initial_state => '[]', concurrency => 1);
SELECT djactor.send('c25', 'a') > 0 AS sent;
CALL idle('c25');
SELECT state - 3 AS states, state -> 3 IS NOT NULL AS other, failures FROM djactor.actor WHERE actor_type = 'c25';

-- # A definition that is rolled back is none
BEGIN;
CREATE OR REPLACE FUNCTION c25(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT collect($1, $$"never"$$)';
ROLLBACK;
SELECT djactor.send('c25', 'a') > 0 AS sent;
CALL idle('c25');
SELECT state -> -1 AS last FROM djactor.actor WHERE actor_type = 'c25';

SELECT djactor.drop_actor_type('c25', true);
DROP FUNCTION c25, c25_other;
