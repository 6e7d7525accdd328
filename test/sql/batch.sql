--
-- Batches: how many turns share a transaction, and how many workers run a type.
-- Section 3 points 2, 7, 28 and 29.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
CREATE TABLE turns (type text, key text, xid xid8, pid int, stamp timestamptz);
CREATE FUNCTION log_turn(state jsonb, message jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO turns VALUES ((djactor.self()).actor_type, (djactor.self()).actor_key, pg_current_xact_id(), pg_backend_pid(), now());
END $$;
SELECT djactor.define_actor_type('batch.many', 'log_turn');
SELECT djactor.define_actor_type('batch.three', 'log_turn', batch_size => 3);
SELECT djactor.define_actor_type('batch.one', 'log_turn', batch_size => 1);
SELECT djactor.pause(name) FROM unnest('{batch.many,batch.three,batch.one}'::text[]) name;
INSERT INTO djactor.message (actor_type, actor_key)
SELECT name, (i % 4)::text FROM unnest('{batch.many,batch.three,batch.one}'::text[]) name, generate_series(1, 200) i;
SELECT djactor.resume(name) FROM unnest('{batch.many,batch.three,batch.one}'::text[]) name;
SELECT djactor.wait_idle('1 min', name) FROM unnest('{batch.many,batch.three,batch.one}'::text[]) name;

-- # Many turns share a transaction and its now(); batch_size sets the most, 1 gives each its own
SELECT type, max(size) AS largest, bool_and(stamps = 1) AS one_now_each
FROM (SELECT type, xid, count(*) AS size, count(DISTINCT stamp) AS stamps FROM turns GROUP BY 1, 2) t
WHERE type <> 'batch.many' GROUP BY 1 ORDER BY 1;
SELECT max(size) > 3 AS more_than_three
FROM (SELECT count(*) AS size FROM turns WHERE type = 'batch.many' GROUP BY xid) t;
SELECT type, count(*) FROM turns GROUP BY 1 ORDER BY 1;

-- # concurrency => 1: never two workers at the same time
CREATE FUNCTION alone(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF NOT pg_try_advisory_xact_lock(815) THEN
		RETURN to_jsonb('crowded'::text);
	END IF;
	PERFORM pg_sleep(0.01);
	RETURN to_jsonb('alone'::text);
END $$;
SELECT djactor.define_actor_type('batch.alone', 'alone', concurrency => 1);
INSERT INTO djactor.message (actor_type, actor_key) SELECT 'batch.alone', i::text FROM generate_series(1, 60) i;
CALL idle('batch.alone');
SELECT state, count(*) FROM djactor.actor WHERE actor_type = 'batch.alone' GROUP BY 1;

-- # One actor's turns never overlap, whatever the number of workers
CREATE FUNCTION exclusive(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF NOT pg_try_advisory_xact_lock(hashtext((djactor.self()).actor_key)) THEN
		RETURN jsonb_set(state, '{overlaps}', 'true');
	END IF;
	PERFORM pg_sleep(0.002);
	RETURN jsonb_set(state, '{n}', to_jsonb((state -> 'n')::int + 1));
END $$;
SELECT djactor.define_actor_type('batch.exclusive', 'exclusive', initial_state => '{"n": 0}', batch_size => 4);
INSERT INTO djactor.message (actor_type, actor_key) SELECT 'batch.exclusive', (i % 5)::text FROM generate_series(1, 500) i;
CALL idle('batch.exclusive');
SELECT actor_key, state, turns FROM djactor.actor WHERE actor_type = 'batch.exclusive' ORDER BY 1;

-- # A backlog of one type does not keep another waiting until its end
CREATE FUNCTION sluggish(state jsonb, message jsonb) RETURNS void LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.005); END';
SELECT djactor.define_actor_type('batch.backlog', 'sluggish', concurrency => 1);
SELECT djactor.define_actor_type('batch.quick', 'collect');
INSERT INTO djactor.message (actor_type, actor_key) SELECT 'batch.backlog', (i % 10)::text FROM generate_series(1, 400) i;
SELECT djactor.send('batch.quick', 'q', '1') > 0 AS sent;
CALL idle('batch.quick');
SELECT count(*) > 0 AS backlog_still_there FROM djactor.message WHERE actor_type = 'batch.backlog';
CALL idle('batch.backlog');

SELECT count(djactor.drop_actor_type(name, true)) AS dropped FROM djactor.actor_type WHERE name LIKE 'batch.%';
DROP TABLE turns;
DROP FUNCTION log_turn, alone, exclusive, sluggish;
