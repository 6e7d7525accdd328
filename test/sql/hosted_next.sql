--
-- next_turn() ends a hosted turn as end_turn() does, and begins the next one as begin_turn() does: contract 2, 3, 6 and 11 for turns that a host runs in
-- one transaction.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
\i :tests/sql/include/hosted.sql
CREATE TABLE written (what text);
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
SELECT djactor.define_actor_type('hosted', NULL, hosted => true), djactor.define_actor_type('other', NULL, hosted => true);
DELETE FROM djactor.reply;
SELECT djactor.host_open('{hosted}') > 0 AS opened;

-- # State and reply are those of the turn that ends; what follows is the other one's
SELECT djactor.send('hosted', 'a', '"one"', wants_reply => true) > 0, put('hosted', 'a', 'two'), put('hosted', 'b', 'three');
SELECT * FROM claims();
BEGIN;
SELECT begin_turn('one');
SELECT djactor.send('other', 'o', '"from one"') > 0 AS sent;
CALL djactor.next_turn(token('three'), id('three'), '"one"', '"answer"');
SELECT (djactor.self()).actor_key, (djactor.message()).payload;
SELECT djactor.send('other', 'o', '"from three"') > 0 AS sent;
CALL djactor.next_turn(token('two'), id('two'));
SELECT (djactor.self()).actor_key, (djactor.message()).payload, (SELECT state FROM djactor.actor WHERE actor_type = 'hosted' AND actor_key = 'a');
CALL djactor.end_turn('"two"');
COMMIT;
SELECT * FROM actors('hosted');
SELECT payload FROM djactor.reply;
SELECT sender_key, payload FROM djactor.message WHERE actor_type = 'other' ORDER BY id;

-- # Deferred constraints fire with the turn that they are of: their failure is that turn's
SELECT put('hosted', 'c', 'p', 'q', 'r');
SELECT * FROM claims();
BEGIN;
SELECT begin_turn('p');
INSERT INTO child VALUES (1);
INSERT INTO parent VALUES (1);
CALL djactor.next_turn(token('q'), id('q'), '"p"');
CALL djactor.end_turn('"q"');
SAVEPOINT s;
SELECT begin_turn('r');
INSERT INTO child VALUES (2);
SELECT put('hosted', 'd', 'not sent');
\set VERBOSITY terse
CALL djactor.next_turn(token('q'), id('q'), '"r"');
\set VERBOSITY default
ROLLBACK TO s;
COMMIT;
SELECT complete('r');
SELECT * FROM actors('hosted') WHERE actor_key = 'c';

-- # If the other one cannot begin, the turn has not ended
SELECT put('hosted', 'd', 'p', 'q'), put('hosted', 'e', 'r');
SELECT * FROM claims();
SELECT release('r');
BEGIN;
SAVEPOINT s;
SELECT begin_turn('p');
INSERT INTO written VALUES ('p');
\set VERBOSITY sqlstate
CALL djactor.next_turn(token('r'), id('r'), '"p"');
ROLLBACK TO s;
SELECT begin_turn('p');
CALL djactor.next_turn(token('q'), id('p'), '"p"');
\set VERBOSITY default
ROLLBACK TO s;
SELECT begin_turn('p');
CALL djactor.next_turn(NULL, id('q'), '"p"');
ROLLBACK TO s;
RELEASE s;
SELECT begin_turn('p');
CALL djactor.next_turn(token('q'), id('q'), '"p"');
\set VERBOSITY terse
COMMIT;
\set VERBOSITY default
SELECT * FROM actors('hosted') WHERE actor_key = 'd';
SELECT count(*) AS written FROM written;

-- # It needs a turn, and a place where that can be ended
BEGIN;
CALL djactor.next_turn(token('p'), id('p'));
ROLLBACK;
CREATE FUNCTION next() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	CALL djactor.next_turn(token('q'), id('q'));
	RETURN 'next';
END $$;
BEGIN;
SELECT begin_turn('p');
SAVEPOINT s;
CALL djactor.next_turn(token('q'), id('q'));
ROLLBACK TO s;
INSERT INTO written SELECT next();
ROLLBACK TO s;
RELEASE s;
CALL djactor.next_turn(token('q'), id('q'), '"p"');
CALL djactor.end_turn('"q"');
COMMIT;
SELECT * FROM actors('hosted') WHERE actor_key = 'd';

SELECT djactor.host_close();
SELECT djactor.drop_actor_type('hosted', true), djactor.drop_actor_type('other', true);
DELETE FROM djactor.reply;
DROP TABLE written, child, parent;
DROP FUNCTION next;
\i :tests/sql/include/hosted_end.sql
