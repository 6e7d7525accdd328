--
-- The view stat: what workers have done for each type, from shared memory.
-- Section 2 (views).
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
CREATE FUNCTION stat_handler(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF message ? 'fail' THEN
		RAISE EXCEPTION 'told to fail';
	END IF;
	RETURN state;
END $$;
SELECT djactor.define_actor_type('stat', 'stat_handler', max_attempts => 3, backoff => '0', backoff_max => '0');

-- # Each type has a row from its definition on; no turns, no times
SELECT handled, failed, retried, dead, duplicates, expired, turns_per_second,
	COALESCE(wait_p50, wait_p95, wait_p99, run_p50, run_p95, run_p99) IS NULL AS no_times, since <= now() AS since
FROM djactor.stat WHERE actor_type = 'stat';

-- # ... and no conflicts, so no limits but those that were set
SELECT conflicts, batch_limit, worker_limit FROM djactor.stat WHERE actor_type = 'stat';

-- # Turns are counted once they have committed, and timed
INSERT INTO djactor.message (actor_type, actor_key) SELECT 'stat', (i % 10)::text FROM generate_series(1, 100) i;
CALL wait_until($$(SELECT handled = 100 FROM djactor.stat WHERE actor_type = 'stat')$$);
SELECT failed, retried, dead, turns_per_second > 0 AS rate,
	wait_p50 > '0' AND wait_p50 <= wait_p95 AND wait_p95 <= wait_p99 AND wait_p99 < '10 min' AS wait,
	run_p50 > '0' AND run_p50 <= run_p95 AND run_p95 <= run_p99 AND run_p99 < '10 min' AS run
FROM djactor.stat WHERE actor_type = 'stat';

-- # A message that fails: each attempt, each retry, the dead letter. What its batch had done before the abort is not counted twice
SELECT djactor.pause('stat');
INSERT INTO djactor.message (actor_type, actor_key) SELECT 'stat', 'one' FROM generate_series(1, 20);
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('stat', 'one', '{"fail": true}');
INSERT INTO djactor.message (actor_type, actor_key) SELECT 'stat', 'one' FROM generate_series(1, 20);
SELECT djactor.resume('stat');
CALL wait_until($$(SELECT handled >= 140 FROM djactor.stat WHERE actor_type = 'stat')$$);
SELECT handled, failed, retried, dead FROM djactor.stat WHERE actor_type = 'stat';

-- # An ask that came too late is counted as expired, any other such message as dead
INSERT INTO djactor.message (actor_type, actor_key, expires_at, wants_reply) VALUES ('stat', 'one', now() - interval '1 s', true);
INSERT INTO djactor.message (actor_type, actor_key, expires_at) VALUES ('stat', 'one', now() - interval '1 s');
INSERT INTO djactor.message (actor_type, actor_key) VALUES ('stat', 'one');
CALL wait_until($$(SELECT handled >= 141 FROM djactor.stat WHERE actor_type = 'stat')$$);
SELECT handled, failed, retried, dead, expired FROM djactor.stat WHERE actor_type = 'stat';

-- # drain() counts nothing, whether its transaction commits or not
BEGIN;
SELECT djactor.send('stat', 'drained') > 0 AS sent;
SELECT djactor.drain();
COMMIT;
SELECT djactor.send('stat', 'one') > 0 AS sent;
CALL wait_until($$(SELECT handled >= 142 FROM djactor.stat WHERE actor_type = 'stat')$$);
SELECT handled FROM djactor.stat WHERE actor_type = 'stat';
SELECT turns FROM djactor.actor WHERE actor_type = 'stat' AND actor_key = 'drained';

-- # Histograms of all turns since then: as many in each as were handled; the buckets end at powers of two
SELECT up_to[1:3] AS first, cardinality(up_to) + 1 = cardinality(waits) AND cardinality(waits) = cardinality(runs) AS last_has_no_end,
	(SELECT sum(n) FROM unnest(waits) n) AS waits, (SELECT sum(n) FROM unnest(runs) n) AS runs
FROM djactor.stat_times WHERE actor_type = 'stat';
-- # ... and their sums lie between what the buckets allow
SELECT waited < (SELECT sum(n * coalesce(e, interval '1 day')) FROM unnest(waits, up_to) b (n, e)) AND waited >= (SELECT sum(n * e / 2) FROM unnest(waits, up_to) b (n, e) WHERE e > '2 us') AS waited,
	ran < (SELECT sum(n * coalesce(e, interval '1 day')) FROM unnest(runs, up_to) b (n, e)) AND ran >= (SELECT sum(n * e / 2) FROM unnest(runs, up_to) b (n, e) WHERE e > '2 us') AS ran
FROM djactor.stat_times WHERE actor_type = 'stat';

-- # A type that is defined again goes on counting; one that is dropped has no row
SELECT djactor.define_actor_type('stat', 'stat_handler');
SELECT handled FROM djactor.stat WHERE actor_type = 'stat';
SELECT djactor.drop_actor_type('stat', true);
SELECT count(*) FROM djactor.stat WHERE actor_type = 'stat';

-- # The view is the database owner's, like the others
CREATE ROLE regress_dja_stat;
SET ROLE regress_dja_stat;
CALL fails('SELECT count(*) FROM djactor.stat');
CALL fails('SELECT count(*) FROM djactor.stat_list()');
CALL fails('SELECT count(*) FROM djactor.stat_times');
CALL fails('SELECT count(*) FROM djactor.stat_times_list()');
RESET ROLE;
DROP ROLE regress_dja_stat;

DROP FUNCTION stat_handler;
