--
-- Hosts and turns: what is wrong is refused, with a reason and a way out, and leaves the claim as it was.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
\i :tests/sql/include/hosted.sql
SELECT djactor.define_actor_type('hosted', NULL, hosted => true), djactor.define_actor_type('hosted.other', NULL, hosted => true),
	djactor.define_actor_type('inside', 'collect');

-- # host_open: types that are not there, not hosted, not one's own, none at all; leases out of range
CALL fails($$SELECT djactor.host_open('{nowhere}')$$);
CALL fails($$SELECT djactor.host_open('{hosted,inside}')$$);
CALL fails($$SELECT djactor.host_open('{}')$$);
CALL fails($$SELECT djactor.host_open('{hosted,NULL}')$$);
CALL fails($$SELECT djactor.host_open('{hosted}', lease => '999 ms')$$);
CALL fails($$SELECT djactor.host_open('{hosted}', lease => '1 h 1 s')$$);
CALL fails($$SELECT djactor.host_open('{hosted}', lease => '-30 s')$$);
CREATE ROLE regress_hosted LOGIN;
GRANT USAGE ON SCHEMA djactor TO regress_hosted;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA djactor TO regress_hosted;
GRANT SELECT ON ALL TABLES IN SCHEMA djactor TO regress_hosted;
SET ROLE regress_hosted;
CALL refused($$SELECT djactor.host_open('{hosted}')$$);
RESET ROLE;
SELECT count(*) AS hosts FROM djactor.host;

-- # take, host_close: in a session that is no host
CALL fails($$SELECT djactor.take(1)$$);
CALL fails($$SELECT djactor.host_close()$$);

-- # A host is opened once, also with the same type named twice
SELECT djactor.host_open('{hosted,hosted}', 'h', '1 h', 'v1') > 0 AS opened;
CALL fails($$SELECT djactor.host_open('{hosted}')$$);
SELECT name, version, types, claims, state, pid = pg_backend_pid() AS mine, lease_until - since BETWEEN '59 min' AND '61 min' AS an_hour FROM djactor.host;

-- # take: numbers out of range; inside a turn of either kind; in a transaction that cannot write
CALL fails($$SELECT djactor.take(-1)$$);
CALL fails($$SELECT djactor.take(1, 0)$$);
CALL fails($$SELECT djactor.take(1, 1001)$$);
CALL fails($$SELECT djactor.take(1000000)$$);
BEGIN READ ONLY;
CALL fails($$SELECT djactor.take(1)$$);
COMMIT;

-- # Tokens that nobody has handed out
CALL fails($$SELECT djactor.complete('{1}', '{1}', NULL)$$);
SELECT djactor.complete('{1,0,-1}', '{1,1,1}', '{1,1,1}'), djactor.complete('{}', '{}', '{}'), djactor.release('{1,0,-1,9223372036854775807}'),
	djactor.fail(1, 1, '38000', 'x');

-- # complete: arrays that do not match, that have nulls or two dimensions
SELECT put('hosted', 'a', 'one', 'two'), put('hosted', 'b', 'three');
SELECT * FROM claims();
CALL fails($$SELECT djactor.complete(ARRAY[token('one')], '{}', '{}')$$);
CALL fails($$SELECT djactor.complete(ARRAY[token('one')], ARRAY[id('one')], '{}')$$);
CALL fails($$SELECT djactor.complete(ARRAY[token('one')], ARRAY[id('one')], '{1}', '{1,2}')$$);
CALL fails($$SELECT djactor.complete(ARRAY[token('one')], ARRAY[id('one')], '{1}', NULL, '{1,2}')$$);
CALL fails($$SELECT djactor.complete(ARRAY[token('one'), NULL], ARRAY[id('one'), 1], '{1,1}')$$);
CALL fails($$SELECT djactor.complete(ARRAY[token('one')], ARRAY[NULL]::bigint[], '{1}')$$);
CALL fails($$SELECT djactor.complete(ARRAY[[token('one')]], ARRAY[[id('one')]], '{{1}}')$$);

-- # The token of another message: of another actor's, of the same actor's, of one that is not there
\set VERBOSITY sqlstate
SELECT djactor.complete(ARRAY[token('one')], ARRAY[id('three')], '{1}');
SELECT djactor.fail(token('one'), id('three'), '38000', 'x');
SELECT djactor.complete(ARRAY[token('one')], ARRAY[id('two')], '{1}');
SELECT djactor.complete(ARRAY[token('one'), token('two')], ARRAY[id('two'), id('one')], '{1,2}');
SELECT djactor.fail(token('one'), id('two'), 'JA003', 'x');
SELECT djactor.complete(ARRAY[token('one')], ARRAY[id('one') + 500], '{1}');
BEGIN;
SELECT djactor.begin_turn(token('one'), id('two'));
ROLLBACK;
BEGIN;
SAVEPOINT s;
SELECT djactor.begin_turn(token('three'), id('one'));
ROLLBACK TO s;
SELECT djactor.complete(ARRAY[token('one'), token('two')], ARRAY[id('one'), id('one')], '{1,2}');
ROLLBACK TO s;
COMMIT;
\set VERBOSITY default
-- ... of which the error says what is wrong, without ids that the test could not know
DO $$
BEGIN
	PERFORM djactor.complete(ARRAY[token('one')], ARRAY[id('two')], '{1}');
EXCEPTION WHEN invalid_parameter_value THEN
	RAISE INFO '%', replace(SQLERRM, id('two')::text, 'N');
END $$;
SELECT claims FROM djactor.host;

-- # fail: what is no SQLSTATE
CALL fails($$SELECT djactor.fail(token('one'), id('one'), '3800', 'x')$$);
CALL fails($$SELECT djactor.fail(token('one'), id('one'), '38o00', 'x')$$);
CALL fails($$SELECT djactor.fail(token('one'), id('one'), NULL, 'x')$$);
CALL fails($$SELECT djactor.fail(NULL, id('one'), '38000', 'x')$$);

-- # begin_turn: needs a transaction block; with the token of another actor's message; twice
\set VERBOSITY terse
SELECT begin_turn('one');
CALL djactor.end_turn();
\set VERBOSITY default
BEGIN;
CALL refused($$SELECT djactor.begin_turn(token('one'), id('three'))$$);
CALL fails($$CALL djactor.end_turn()$$);
SELECT begin_turn('one');
CALL fails($$SELECT begin_turn('three')$$);

-- # Inside a turn nothing else begins or ends, and nobody waits
CALL fails($$SELECT complete('three')$$);
CALL fails($$SELECT fail('three')$$);
CALL fails($$SELECT djactor.take(1)$$);
CALL fails($$SELECT djactor.drain_take()$$);
CALL fails($$SELECT djactor.drain()$$);
CALL fails($$SELECT djactor.wait_idle('1 s')$$);
CALL fails($$SELECT djactor.wait_reply(1)$$);

-- # A commit with an open turn is refused, and so is PREPARE TRANSACTION, also when the turn is done
\set VERBOSITY terse
COMMIT;
BEGIN;
SELECT begin_turn('one');
PREPARE TRANSACTION 'hosted';
BEGIN;
SELECT begin_turn('one');
CALL djactor.end_turn('"nothing"');
PREPARE TRANSACTION 'hosted';
BEGIN;
SELECT complete('one');
PREPARE TRANSACTION 'hosted';

-- # end_turn within a savepoint that begin_turn was not in
BEGIN;
SELECT begin_turn('one');
SAVEPOINT s;
CALL djactor.end_turn();
ROLLBACK;
\set VERBOSITY default

-- # In another role's session none of it can be ended
SET ROLE regress_hosted;
SELECT djactor.heartbeat(id), djactor.host_drain(id), djactor.host_crashed(id, '{}') FROM djactor.host;
RESET ROLE;
GRANT SELECT ON taken TO regress_hosted;
SET ROLE regress_hosted;
SELECT complete('one', 'three'), fail('one'), release('one');
BEGIN;
CALL fails($$SELECT djactor.begin_turn(token('one'), 1)$$);
COMMIT;
RESET ROLE;

-- # After all that the claims are as they were
SELECT claims FROM djactor.host;
SELECT complete('one', 'two', 'three');
SELECT * FROM actors('hosted');
SELECT djactor.host_close();
CALL fails($$SELECT djactor.take(1)$$);
SELECT djactor.heartbeat(1), djactor.host_drain(1), djactor.host_crashed(1, '{1}');

SELECT count(djactor.drop_actor_type(name, true)) AS dropped FROM djactor.actor_type WHERE name IN ('hosted', 'hosted.other', 'inside');
DROP OWNED BY regress_hosted;
DROP ROLE regress_hosted;
\i :tests/sql/include/hosted_end.sql
