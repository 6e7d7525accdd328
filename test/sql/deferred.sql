--
-- Deferred constraints and triggers fire at the end of each turn, and what they raise is that turn's failure; so is
-- an error of the commit.
-- Section 3 points 11 and 29.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (parent int REFERENCES parent DEFERRABLE INITIALLY DEFERRED, key text);
INSERT INTO parent SELECT generate_series(1, 10);
CREATE FUNCTION add_rows(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF message ? 'child' THEN
		INSERT INTO child VALUES ((message -> 'child')::int, (djactor.self()).actor_key);
	END IF;
	IF message ? 'parent' THEN
		INSERT INTO parent VALUES ((message -> 'parent')::int);
	END IF;
	RETURN collect(state, message);
END $$;
SELECT djactor.define_actor_type('deferred', 'add_rows', max_attempts => 1);

-- # Within a turn a constraint may be violated for a while
SELECT djactor.send('deferred', 'mended', '{"child": 11, "parent": 11}') > 0 AS sent;
CALL idle('deferred');
SELECT state FROM djactor.actor WHERE actor_type = 'deferred';

-- # At its end the violation is that turn's failure, and its batch-mates survive
SELECT djactor.pause('deferred');
INSERT INTO djactor.message (actor_type, actor_key, payload)
SELECT 'deferred', 'mates ' || i % 3, jsonb_build_object('child', CASE WHEN i IN (4, 5) THEN 999 ELSE i END) FROM generate_series(1, 9) i;
SELECT djactor.resume('deferred');
CALL idle('deferred');
SELECT actor_key, state, turns FROM djactor.actor WHERE actor_type = 'deferred' AND actor_key LIKE 'mates%' ORDER BY 1;
SELECT actor_key, payload, sqlstate, split_part(error, E'\n', 1) AS error FROM djactor.dead_letter WHERE actor_type = 'deferred' ORDER BY 1;
SELECT key, array_agg(parent ORDER BY parent) AS parents FROM child GROUP BY 1 ORDER BY 1;

-- # Batch-mates cannot repair each other's violations
DELETE FROM djactor.dead_letter WHERE actor_type = 'deferred';
SELECT djactor.pause('deferred');
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES
	('deferred', 'repair', '{"child": 20}'), ('deferred', 'repair', '{"parent": 20}');
SELECT djactor.resume('deferred');
CALL idle('deferred');
SELECT state FROM djactor.actor WHERE actor_type = 'deferred' AND actor_key = 'repair';
SELECT payload, sqlstate FROM djactor.dead_letter WHERE actor_type = 'deferred';

-- # A deferred constraint trigger runs as the handler's turn: it may send, and knows the sender
CREATE FUNCTION on_child() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM djactor.send('deferred.sink', 'sink', to_jsonb((djactor.self()).actor_key));
	RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER on_child AFTER INSERT ON child DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION on_child();
SELECT djactor.define_actor_type('deferred.sink', 'collect');
SELECT djactor.pause('deferred');
INSERT INTO djactor.message (actor_type, actor_key, payload) SELECT 'deferred', 'sender ' || i, '{"child": 1}' FROM generate_series(1, 3) i;
SELECT djactor.resume('deferred');
CALL idle('deferred');
CALL idle('deferred.sink');
SELECT key FROM djactor.actor, jsonb_array_elements(state) key WHERE actor_type = 'deferred.sink' ORDER BY 1;

-- # What fails only at the commit: a cursor WITH HOLD is read then
CREATE FUNCTION at_commit(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF message ? 'bad' THEN
		EXECUTE 'DECLARE c CURSOR WITH HOLD FOR SELECT 1 / (i - 3) FROM generate_series(1, 5) i';
	END IF;
	RETURN collect(state, message);
END $$;
SELECT djactor.define_actor_type('deferred.commit', 'at_commit', max_attempts => 2, backoff => '1 ms');
SELECT djactor.pause('deferred.commit');
INSERT INTO djactor.message (actor_type, actor_key, payload)
SELECT 'deferred.commit', 'c ' || i % 3, CASE WHEN i = 5 THEN '{"bad": 5}' ELSE to_jsonb(i) END FROM generate_series(1, 9) i;
SELECT djactor.resume('deferred.commit');
CALL idle('deferred.commit');
SELECT actor_key, state, turns FROM djactor.actor WHERE actor_type = 'deferred.commit' ORDER BY 1;
SELECT actor_key, payload, attempts, sqlstate, error FROM djactor.dead_letter WHERE actor_type = 'deferred.commit';

DELETE FROM djactor.dead_letter WHERE actor_type LIKE 'deferred%';
SELECT count(djactor.drop_actor_type(name, true)) AS dropped FROM djactor.actor_type WHERE name LIKE 'deferred%';
DROP TABLE child, parent;
DROP FUNCTION add_rows, on_child, at_commit;
