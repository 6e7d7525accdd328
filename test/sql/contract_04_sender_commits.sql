--
-- Contract 4: a message is there once its sender has committed, and what the sender rolls back was never sent.
-- (That nobody handles it before the commit: test/specs/contract-04-not-before-commit.spec.)
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql

SELECT djactor.define_actor_type('c04', 'collect');

-- # Rolled back: never sent
BEGIN;
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('c04', 'a', '"rolled back"');
ROLLBACK;

-- # A savepoint takes back what was sent since
BEGIN;
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('c04', 'a', '"before the savepoint"');
SAVEPOINT s;
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('c04', 'a', '"after it"');
ROLLBACK TO s;
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('c04', 'a', '"after the rollback"');
COMMIT;

-- # So does an exception that was caught
DO $$
BEGIN
	PERFORM djactor.send('c04', 'a', '"in a block that fails"');
	RAISE EXCEPTION 'failing';
EXCEPTION WHEN raise_exception THEN
	PERFORM djactor.send('c04', 'a', '"from its handler"');
END $$;
CALL idle('c04');
SELECT state FROM djactor.actor WHERE actor_type = 'c04';

-- # A sender whose commit fails has sent nothing
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
BEGIN;
INSERT INTO child VALUES (1);
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('c04', 'a', '"cannot commit"');
\set VERBOSITY terse
COMMIT;
\set VERBOSITY default
CALL idle('c04');
SELECT turns FROM djactor.actor WHERE actor_type = 'c04';
SELECT count(*) AS waiting FROM djactor.message WHERE actor_type = 'c04';

SELECT djactor.drop_actor_type('c04', true);
DROP TABLE child, parent;
