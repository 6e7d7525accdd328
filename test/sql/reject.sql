--
-- Rejecting: reject(), or any error with SQLSTATE JA003, gives the message up at once, and nothing else happens to the actor.
-- Section 2 (reject), section 3 points 12, 13, 14 and 23.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
\i :tests/sql/include/ask.sql
SELECT djactor.define_actor_type('reject.hold', 'act'), djactor.define_actor_type('reject.skip', 'act', retry_order => 'skip'),
	djactor.define_actor_type('reject.suspend', 'act', on_exhausted => 'suspend', max_attempts => 1), djactor.define_actor_type('reject.breaker', 'act', breaker_failures => 2);
-- # What came before and after it in the batch is handled, in its order; what the turn wrote is gone
CREATE TABLE written (n int);
INSERT INTO djactor.message (actor_type, actor_key, payload) SELECT t, 'a', p FROM djactor.actor_type, LATERAL (VALUES (name)) AS _(t),
	(VALUES (1, '{"n": 1}'::jsonb), (2, '{"do": "INSERT INTO written VALUES (1) RETURNING djactor.reject(''no'')"}'), (3, '{"n": 3}'), (4, '{"do": "SELECT djactor.reject(NULL)"}'), (5, '{"n": 5}')) AS m (n, p)
	WHERE t LIKE 'reject.%' ORDER BY t, n;
CALL idle('reject.hold'); CALL idle('reject.skip'); CALL idle('reject.suspend'); CALL idle('reject.breaker');
SELECT actor_type, status, state, turns, failures, last_error FROM djactor.actor WHERE actor_type LIKE 'reject.%' ORDER BY 1;
SELECT actor_type, reason, sqlstate, error, attempts FROM djactor.dead_letter WHERE actor_type LIKE 'reject.%' ORDER BY actor_type, id;
SELECT count(*) AS written FROM written;
SELECT count(*) AS waiting FROM djactor.message WHERE actor_type LIKE 'reject.%';
-- # A handler may catch it like any other error
SELECT djactor.send('reject.hold', 'caught', jsonb_build_object('n', 1, 'do', $$DO 'BEGIN PERFORM djactor.reject(''no''); EXCEPTION WHEN SQLSTATE ''JA003'' THEN END'; SELECT NULL$$)) > 0;
CALL idle('reject.hold');
SELECT handled('reject.hold', 'caught');
-- # A first turn that rejects leaves no actor
SELECT djactor.send('reject.hold', 'nobody', '{"do": "SELECT djactor.reject(''no'')"}') > 0;
CALL idle('reject.hold');
SELECT count(*) AS actors FROM djactor.actor WHERE actor_key = 'nobody';
-- # A breaker does not count it
SELECT djactor.send('reject.breaker', g::text, '{"do": "SELECT djactor.reject(''no'')"}') > 0 AS sent FROM generate_series(1, 5) g;
CALL idle('reject.breaker');
SELECT paused FROM djactor.actor_type WHERE name = 'reject.breaker';
-- # Where a worker fails alone it is the same as in a batch
SELECT djactor.define_actor_type('reject.hold', 'act', batch_size => 1);
SELECT put('solo', 'reject.hold', 'solo', '{"do": "SELECT djactor.reject(''no'')"}'), put('next', 'reject.hold', 'solo', '{"reply": "next"}');
CALL idle('reject.hold');
SELECT * FROM answer ORDER BY id_of(name);
-- # In drain() it is an error as any other, or follows the policy
BEGIN;
SELECT put('drained', 'reject.hold', 'd', '{"do": "SELECT djactor.reject(''no'')"}');
SELECT djactor.drain(on_error => 'retry');
SELECT payload, error ->> 'reason' AS reason FROM answer WHERE name = 'drained';
ROLLBACK;
BEGIN;
SELECT put('drained', 'reject.hold', 'd', '{"do": "SELECT djactor.reject(''no'')"}');
\set VERBOSITY sqlstate
SELECT djactor.drain();
\set VERBOSITY default
ROLLBACK;
CALL fails('SELECT djactor.reject(''no'')');

SELECT djactor.drop_actor_type(name, true) FROM djactor.actor_type WHERE name LIKE 'reject.%';
DELETE FROM djactor.dead_letter WHERE actor_type LIKE 'reject.%';
DROP TABLE written;
\i :tests/sql/include/ask_end.sql
