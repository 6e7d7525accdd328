--
-- begin_turn(), end_turn(), complete() and fail() below other queries, functions and triggers: end_turn() is refused within a query that writes,
-- since deferred triggers cannot fire there; everything else works wherever it is called.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
\i :tests/sql/include/hosted.sql
SELECT djactor.define_actor_type('hosted', NULL, hosted => true);
SELECT djactor.host_open('{hosted}') > 0 AS opened;
CREATE TABLE written (what text);
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
CREATE FUNCTION end_it(state jsonb DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	CALL djactor.end_turn(state);
	RETURN 'ended';
END $$;
CREATE FUNCTION end_it_in_sql() RETURNS text LANGUAGE sql AS $$ CALL djactor.end_turn(); SELECT 'ended' $$;
CREATE FUNCTION whole_turn(word text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM begin_turn(word);
	CALL djactor.end_turn(to_jsonb(word));
	RETURN word;
END $$;
CREATE FUNCTION end_it_when_written() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	CALL djactor.end_turn();
	RETURN NULL;
END $$;
CREATE FUNCTION complete_when_written() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE INFO '%: %', NEW.what, complete(NEW.what);
	RETURN NULL;
END $$;
SELECT put('hosted', 'a', 'p', 'q', 'r', 's', 't', 'u', 'v', 'w');
SELECT * FROM claims();

-- # end_turn() within an INSERT, a CTE that writes, a trigger, at any depth: refused, and the turn can be ended properly
BEGIN;
SELECT begin_turn('p');
CALL fails($$INSERT INTO written SELECT end_it()$$);
CALL refused($$INSERT INTO written SELECT end_it_in_sql()$$);
CALL refused($$WITH w AS (INSERT INTO written VALUES ('w') RETURNING what) SELECT end_it() FROM w$$);
CALL refused($$DO 'BEGIN INSERT INTO written SELECT end_it(); END'$$);
CALL djactor.end_turn('"p"');
CALL refused($$INSERT INTO written SELECT whole_turn('q')$$);
ROLLBACK;
\set VERBOSITY sqlstate
BEGIN;
SELECT begin_turn('p');
INSERT INTO written SELECT end_it();
ROLLBACK;
CREATE TRIGGER written AFTER INSERT ON written FOR EACH ROW EXECUTE FUNCTION end_it_when_written();
BEGIN;
SELECT begin_turn('p');
INSERT INTO written VALUES ('w');
ROLLBACK;
BEGIN;
SELECT begin_turn('p');
DO $$ BEGIN INSERT INTO written VALUES ('w'); END $$;
ROLLBACK;
DROP TRIGGER written ON written;

-- # A deferred trigger does not end the turn that fires it
CREATE CONSTRAINT TRIGGER written AFTER INSERT ON written DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION end_it_when_written();
BEGIN;
SELECT begin_turn('p');
INSERT INTO written VALUES ('w');
CALL djactor.end_turn();
ROLLBACK;
\set VERBOSITY default
-- ... but at the commit it may, which is no query
BEGIN;
SELECT begin_turn('p');
INSERT INTO written VALUES ('at the commit');
COMMIT;
SELECT state, turns FROM actors('hosted');
DROP TRIGGER written ON written;

-- # Within queries that only read, and functions that they call, it is ended; deferred constraints fire
BEGIN;
SELECT begin_turn('q');
INSERT INTO child VALUES (1);
\set VERBOSITY sqlstate
SELECT end_it();
\set VERBOSITY default
ROLLBACK;
SELECT complete('q');
BEGIN;
SELECT begin_turn('r');
INSERT INTO child VALUES (1);
INSERT INTO parent VALUES (1);
SELECT end_it('"r"');
SELECT whole_turn('s');
DO $$ BEGIN PERFORM whole_turn('t'); END $$;
COMMIT;
SELECT state, turns FROM actors('hosted');
-- ... with a cursor open that reads
BEGIN;
DECLARE c CURSOR FOR SELECT generate_series(1, 3);
FETCH c;
SELECT begin_turn('u');
CALL djactor.end_turn('"u"');
FETCH c;
COMMIT;

-- # complete(), fail(), take() and begin_turn() work within queries that write, and in triggers
INSERT INTO written SELECT unnest(complete('v'));
CREATE TRIGGER written AFTER INSERT ON written FOR EACH ROW EXECUTE FUNCTION complete_when_written();
INSERT INTO written VALUES ('w');
DROP TRIGGER written ON written;
SELECT put('hosted', 'a', 'x', 'y', 'z');
SELECT * FROM claims();
WITH w AS (INSERT INTO written SELECT unnest(complete('x')) RETURNING what) SELECT * FROM w;
BEGIN;
INSERT INTO written SELECT 'begun' FROM begin_turn('y');
CALL djactor.end_turn('"y"');
COMMIT;
INSERT INTO written SELECT fail('z', 'JA003');
SELECT what FROM written;
SELECT state, turns FROM actors('hosted');
SELECT payload, reason FROM djactor.dead_letter WHERE actor_type = 'hosted';

SELECT claims FROM djactor.host;
SELECT djactor.host_close();
SELECT djactor.drop_actor_type('hosted', true);
DELETE FROM djactor.dead_letter WHERE actor_type = 'hosted';
DROP TABLE written, child, parent;
DROP FUNCTION end_it, end_it_in_sql, whole_turn, end_it_when_written, complete_when_written;
\i :tests/sql/include/hosted_end.sql
