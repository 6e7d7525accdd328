--
-- Contract 5: what one transaction sends to many actors becomes visible together: the first of them to run finds all
-- the others' mail sent.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql

-- The first turn of all sees 200 messages; each next one as many less as were handled before.
CREATE TABLE handled (key text, waiting bigint, before bigint);
CREATE FUNCTION c05(state jsonb, message jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO handled SELECT (djactor.self()).actor_key,
		(SELECT count(*) FROM djactor.message m WHERE m.trace_id = (djactor.message()).trace_id),
		(SELECT count(*) FROM handled);
END $$;
SELECT djactor.define_actor_type('c05', 'c05', batch_size => 1, concurrency => 1);

-- the worker is there, and asleep: what it is not told of it does not find
SELECT djactor.send('c05', 'warm') > 0 AS sent;
CALL idle('c05');
SELECT pg_sleep(1.5);
TRUNCATE handled;

-- # Sent with several statements, to actors that exist as little as those that the next statement sends to
BEGIN;
INSERT INTO djactor.message (actor_type, actor_key) SELECT 'c05', 'first ' || i FROM generate_series(1, 100) i;
SELECT count(djactor.send('c05', 'second ' || i)) AS sent FROM generate_series(1, 99) i;
SELECT djactor.send('c05', 'last') > 0 AS sent;
COMMIT;
CALL idle('c05');
SELECT count(*) AS handled, count(DISTINCT key) AS actors, min(waiting + before) AS least_seen, max(waiting + before) AS most_seen FROM handled;

SELECT djactor.drop_actor_type('c05', true);
DROP FUNCTION c05;
DROP TABLE handled;
