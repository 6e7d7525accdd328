--
-- What happens to an actor or its mail while a host has it is seen when the turn is to be ended: nothing of that is overwritten,
-- the claim ends, and what is still to be done comes again.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
\i :tests/sql/include/hosted.sql
SELECT djactor.define_actor_type('hosted', NULL, hosted => true);
SELECT djactor.host_open('{hosted}') > 0 AS opened;

-- # The state was changed by hand: the turn runs again, on what was written
SELECT put('hosted', 'a', 'p', 'q');
SELECT * FROM claims(100, 1);
SELECT complete('p');
SELECT * FROM claims();
UPDATE djactor.actor SET state = '"by hand"' WHERE actor_type = 'hosted';
SELECT complete('q');
SELECT * FROM actors('hosted');
SELECT * FROM claims();
-- ... begin_turn says so, too
UPDATE djactor.actor SET state = '"by hand again"' WHERE actor_type = 'hosted';
BEGIN;
CALL fails(format('SELECT djactor.begin_turn(%s, 4711)', token('p')));
\set VERBOSITY sqlstate
SELECT begin_turn('q');
\set VERBOSITY default
ROLLBACK;
SELECT complete('q');
SELECT * FROM claims();
-- ... but not if it is the turn itself that writes
BEGIN;
SELECT begin_turn('q');
SELECT state FROM djactor.actor WHERE actor_type = 'hosted';
CALL djactor.end_turn('"q"');
COMMIT;
SELECT * FROM actors('hosted');

-- # Between two turns of a claim, too
SELECT put('hosted', 'a', 'r', 's');
SELECT * FROM claims();
SELECT complete('r');
UPDATE djactor.actor SET state = '"between"' WHERE actor_type = 'hosted';
SELECT complete('s');
SELECT * FROM claims();
SELECT complete('s');

-- # The actor was stopped: the turn runs again, on a fresh one
SELECT put('hosted', 'a', 't');
SELECT * FROM claims();
SELECT djactor.stop_actor('hosted', 'a');
SELECT complete('t');
SELECT * FROM claims();
SELECT complete('t');
SELECT * FROM actors('hosted');

-- # A message that was cancelled is gone, and the rest of its claim comes again
SELECT put('hosted', 'c', 'p', 'q');
SELECT * FROM claims();
SELECT djactor.cancel(id('p'));
SELECT complete('p', 'q');
SELECT * FROM claims();
BEGIN;
SELECT begin_turn('q');
CALL djactor.end_turn('"q"');
COMMIT;
SELECT put('hosted', 'c', 'r');
SELECT * FROM claims();
SELECT djactor.cancel(id('r'));
SELECT fail('r');
SELECT claims FROM djactor.host;

-- # pause(type): halted, and again after resume()
SELECT put('hosted', 'd', 'p'), put('hosted', 'e', 'q');
SELECT * FROM claims();
SELECT djactor.pause('hosted');
SELECT complete('p');
BEGIN;
\set VERBOSITY sqlstate
SELECT begin_turn('q');
\set VERBOSITY default
ROLLBACK;
SELECT claims FROM djactor.host;
SELECT count(*) FROM claims();
SELECT djactor.resume('hosted');
CALL take_until('p', 'q');
SELECT complete('p', 'q');
SELECT * FROM actors('hosted') WHERE actor_key IN ('d', 'e');

-- # pause(actor), and a failure meanwhile
SELECT put('hosted', 'd', 'r'), put('hosted', 'e', 's');
SELECT * FROM claims();
SELECT djactor.pause('hosted', 'd'), djactor.pause('hosted', 'e');
SELECT complete('r');
SELECT fail('s');
SELECT payload, attempts FROM djactor.message WHERE actor_type = 'hosted' ORDER BY id;
SELECT count(*) FROM claims();
SELECT djactor.resume('hosted', 'd');
CALL take_until('r');
SELECT complete('r');
SELECT djactor.cancel(id) FROM djactor.message WHERE actor_type = 'hosted';
SELECT djactor.resume('hosted', 'e');

-- # A pause that was undone meanwhile is no change
SELECT put('hosted', 'f', 'p');
SELECT * FROM claims();
SELECT djactor.pause('hosted');
SELECT djactor.resume('hosted');
SELECT complete('p');

-- # Redefined as not hosted: halted, and a worker takes over, in order; and back again
SELECT put('hosted', 'g', 'p', 'q', 'r');
SELECT * FROM claims();
SELECT complete('p');
SELECT djactor.define_actor_type('hosted', 'collect', initial_state => '[]');
SELECT complete('q');
CALL wait_until($$(SELECT turns FROM djactor.actor WHERE actor_key = 'g') = 3$$);
SELECT * FROM actors('hosted') WHERE actor_key = 'g';
SELECT djactor.pause('hosted');
SELECT put('hosted', 'g', 's', 't');
SELECT djactor.alter_actor_type('hosted', hosted => true);
SELECT djactor.resume('hosted');
CALL take_until('s', 't');
SELECT complete('s', 't');
SELECT * FROM actors('hosted') WHERE actor_key = 'g';

-- # Dropped and defined anew while a host serves it
SELECT djactor.drop_actor_type('hosted', true);
SELECT complete('p'), fail('p');
SELECT claims, types FROM djactor.host;
SELECT djactor.define_actor_type('hosted', NULL, hosted => true);
SELECT put('hosted', 'h', 'r');
CALL take_until('r');
SELECT complete('r');
SELECT * FROM actors('hosted');

-- # A host that was opened before the state_version changed does not know the states: it gets nothing, what it has is halted, and nothing is lost
SELECT put('hosted', 'h', 's', 't'), put('hosted', 'i', 'new');
SELECT * FROM claims(1);
SELECT djactor.alter_actor_type('hosted', state_version => 3);
SELECT complete('s');
CALL fails($$SELECT djactor.take(1)$$);
SELECT claims FROM djactor.host;
SELECT state, state_version, turns FROM djactor.actor WHERE actor_type = 'hosted';
SELECT djactor.host_close();
SELECT djactor.host_open('{hosted}') > 0 AS opened;

-- # An older state is handed out with its version, and has the new one after its turn
BEGIN;
SELECT actor_key, payload, first, state, "exists", from_version FROM djactor.take(10, 10) ORDER BY id;
ROLLBACK;
SELECT * FROM claims();
SELECT complete('new', 's');
SELECT actor_key, state, state_version FROM djactor.actor WHERE actor_type = 'hosted' ORDER BY 1;
SELECT complete('t');

-- # ... but keeps its version if the turn leaves it as it is, since then it was not upgraded
SELECT djactor.alter_actor_type('hosted', state_version => 4);
SELECT djactor.host_close();
SELECT djactor.host_open('{hosted}') > 0 AS opened;
SELECT put('hosted', 'h', 'u');
SELECT * FROM claims();
BEGIN;
SELECT begin_turn('u');
CALL djactor.end_turn();
COMMIT;
SELECT actor_key, state, state_version FROM djactor.actor WHERE actor_type = 'hosted' ORDER BY 1;
SELECT put('hosted', 'h', 'u');
SELECT * FROM claims();
SELECT complete('u');

-- # An actor that is newer than its type waits, also when it is in flight
SELECT put('hosted', 'h', 'v', 'w');
SELECT * FROM claims(100, 1);
SELECT djactor.alter_actor_type('hosted', state_version => 2);
SELECT complete('v');
SELECT djactor.host_close();
SELECT djactor.host_open('{hosted}') > 0 AS opened;
SELECT count(*) FROM claims();
SELECT djactor.host_close();
SELECT djactor.alter_actor_type('hosted', state_version => 4);
SELECT djactor.host_open('{hosted}') > 0 AS opened;
CALL take_until('v', 'w');
SELECT complete('v', 'w');
SELECT actor_key, state, state_version, turns FROM djactor.actor WHERE actor_type = 'hosted' ORDER BY 1;

SELECT djactor.host_close();
SELECT djactor.drop_actor_type('hosted', true);
\i :tests/sql/include/hosted_end.sql
