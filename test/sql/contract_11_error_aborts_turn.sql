--
-- Contract 11: an error aborts the turn, and the next attempt sees the last committed state. Deferred constraints and triggers
-- fire at the end of each turn: what they raise is that turn's failure, and not its neighbours'.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql

CREATE TABLE parent (id int PRIMARY KEY);
INSERT INTO parent VALUES (1);
CREATE TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE seen (attempts int, state jsonb);
CREATE FUNCTION c11(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF message ? 'parent' THEN
		INSERT INTO child VALUES ((message -> 'parent')::int);
	END IF;
	state := collect(state, message -> 'n');
	IF message ? 'fail' AND (djactor.message()).attempts < (message -> 'fail')::int THEN
		RAISE EXCEPTION 'fails after changing the state to %', state;
	END IF;
	RETURN state;
END $$;
SELECT djactor.define_actor_type('c11', 'c11', initial_state => '[]', max_attempts => 3, backoff => '1 ms');

-- # Two attempts have failed; nothing of them is in the state of the third
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES
	('c11', 'retry', '{"n": 1}'), ('c11', 'retry', '{"n": 2, "fail": 2}'), ('c11', 'retry', '{"n": 3}');
CALL idle('c11');
SELECT state, turns, failures, last_error FROM djactor.actor WHERE actor_type = 'c11' AND actor_key = 'retry';

-- # A deferred foreign key, in the middle of a batch: one message dies of it, after its attempts
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES
	('c11', 'a', '{"n": 1, "parent": 1}'), ('c11', 'a', '{"n": 2, "parent": 2}'), ('c11', 'a', '{"n": 3, "parent": 1}'),
	('c11', 'b', '{"n": 4, "parent": 1}');
CALL idle('c11');
SELECT actor_key, state, failures FROM djactor.actor WHERE actor_type = 'c11' AND actor_key IN ('a', 'b') ORDER BY 1;
SELECT payload, attempts, reason, sqlstate, error LIKE '%violates foreign key constraint%' AS deferred_constraint
FROM djactor.dead_letter WHERE actor_type = 'c11';
SELECT id, count(*) FROM child GROUP BY 1;

-- # A deferred trigger sees the turn that it belongs to
CREATE FUNCTION c11_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO seen VALUES ((djactor.message()).attempts, (djactor.message()).payload);
	RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER deferred AFTER INSERT ON child DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION c11_trigger();
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('c11', 'a', '{"n": 5, "parent": 1}'), ('c11', 'a', '{"n": 6, "parent": 1}');
CALL idle('c11');
SELECT * FROM seen ORDER BY state;

SELECT djactor.drop_actor_type('c11', true);
DELETE FROM djactor.dead_letter WHERE actor_type = 'c11';
DROP TABLE child, parent, seen;
DROP FUNCTION c11, c11_trigger;
