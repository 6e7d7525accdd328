--
-- A read-only transaction changes nothing, whatever function is called in it; it may look and wait.
-- Section 2 (tables: allowed writes).
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
SELECT djactor.define_actor_type('read_only', 'collect');
SELECT djactor.send('read_only', 'r', '1') > 0 AS sent;
CALL idle('read_only');
SET default_transaction_read_only = on;
CALL refused($$SELECT djactor.send('read_only', 'r', '2')$$);
CALL refused($$SELECT djactor.define_actor_type('read_only', 'collect')$$);
CALL refused($$SELECT djactor.drop_actor_type('read_only', true)$$);
CALL refused($$SELECT djactor.pause('read_only')$$);
CALL refused($$SELECT djactor.resume('read_only')$$);
CALL refused($$SELECT djactor.pause('read_only', 'r')$$);
CALL refused($$SELECT djactor.resume('read_only', 'r')$$);
CALL refused($$SELECT djactor.drain()$$);
SELECT djactor.wait_idle('1 min', 'read_only');
SELECT state FROM djactor.actor WHERE actor_type = 'read_only';
RESET default_transaction_read_only;

SELECT djactor.drop_actor_type('read_only', true);
