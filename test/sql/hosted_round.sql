--
-- take() and complete(): what is handed out, in which order, and what is left when it is done.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
\i :tests/sql/include/hosted.sql
SELECT djactor.define_actor_type('hosted.round', NULL, hosted => true, initial_state => '{"n": 0}', journal => '1 day', handler_timeout => '90 s');
SELECT djactor.host_open('{hosted.round}', 'h') > 0 AS opened;

-- # Nothing to do
SELECT count(*) FROM djactor.take(10);
SELECT state, claims FROM djactor.host;

-- # One row for each message, those of a mailbox next to each other and in order; the state only with the first
SELECT put('hosted.round', 'a', 'one'), put('hosted.round', 'b', 'two'), put('hosted.round', 'a', 'three', 'four');
CREATE TEMP TABLE t AS SELECT row_number() OVER () AS n, * FROM djactor.take(10, 2);
SELECT actor_key, payload, first, state, "exists", turns, from_version, attempts, kind, time_limit, headers, meta FROM t ORDER BY n;
SELECT count(DISTINCT claim) AS claims, count(DISTINCT token) AS tokens, bool_and(trace_id IS NOT NULL) AS traced, bool_and(sent_at <= now()) AS timed FROM t;
SELECT state, claims FROM djactor.host;

-- # A mailbox that is taken is not taken again, whoever sends to it
SELECT put('hosted.round', 'a', 'five'), put('hosted.round', 'c', 'six');
SELECT * FROM claims(10, 2);
SELECT claims FROM djactor.host;

-- # What is done is done with the commit: state, turns, the message
BEGIN;
SELECT djactor.complete(array_agg(token ORDER BY n), array_agg(id ORDER BY n), '{"{\"n\": 1}",NULL,"{\"n\": 1}"}') FROM t;
SELECT claims FROM djactor.host;
SELECT * FROM actors('hosted.round');
COMMIT;
SELECT claims FROM djactor.host;
SELECT * FROM actors('hosted.round');
SELECT actor_key, payload FROM djactor.message WHERE actor_type = 'hosted.round' ORDER BY id;

-- # A token is good for one turn
SELECT djactor.complete(array_agg(token ORDER BY n), array_agg(id ORDER BY n), '{1,1,1}') FROM t;

-- # The next claim goes on where the last one has ended: state, turns
SELECT * FROM claims();
SELECT complete('four', 'five');
SELECT * FROM actors('hosted.round');

-- # Turns of a claim end in their order, in one transaction or in several
SELECT put('hosted.round', 'd', 'p', 'q', 'r');
SELECT * FROM claims();
SELECT complete('p', 'q');
SELECT complete('r');
SELECT * FROM actors('hosted.round') WHERE actor_key = 'd';

-- # Who skips a turn, or ends one twice, has lost his claim; what is not done is handed out again, in order
SELECT put('hosted.round', 'd', 's', 't', 'u');
SELECT * FROM claims();
SELECT complete('t');
SELECT claims FROM djactor.host;
SELECT complete('s', 't', 'u');
SELECT * FROM claims();
SELECT complete('s', 's', 't', 'u');
SELECT claims FROM djactor.host;
SELECT * FROM actors('hosted.round') WHERE actor_key = 'd';
SELECT * FROM claims();
SELECT complete('t');
SELECT complete('t');
SELECT * FROM claims();
SELECT put('hosted.round', 'd', 'v');
SELECT complete('u');
SELECT * FROM actors('hosted.round') WHERE actor_key = 'd';
-- ... by fail(), which writes no attempt down
SELECT put('hosted.round', 'd', 'w');
SELECT * FROM claims();
SELECT fail('w');
SELECT * FROM claims();
SELECT payload, attempts FROM djactor.message WHERE actor_type = 'hosted.round' AND actor_key = 'd' ORDER BY id;
-- ... by begin_turn(), although that is an error, also within a savepoint
BEGIN;
CALL refused($$SELECT begin_turn('w')$$);
ROLLBACK;
SELECT claims FROM djactor.host;
SELECT * FROM claims();
BEGIN;
SELECT begin_turn('v');
CALL djactor.end_turn('"v"');
SAVEPOINT s;
CALL refused($$SELECT begin_turn('v')$$);
ROLLBACK TO s;
CALL refused($$SELECT begin_turn('w')$$);
COMMIT;
SELECT claims FROM djactor.host;
SELECT * FROM claims();
SELECT complete('w');
SELECT * FROM actors('hosted.round') WHERE actor_key = 'd';
-- ... and by a token of the claim itself, which names no turn
SELECT put('hosted.round', 'd', 'x');
SELECT * FROM claims();
SELECT djactor.complete(ARRAY[claim], ARRAY[id], '{1}') FROM taken WHERE word = 'x';
SELECT * FROM claims();
SELECT complete('x');

-- # An aborted transaction has done nothing, and the claim is as it was
SELECT put('hosted.round', 'e', 'p', 'q');
SELECT * FROM claims();
BEGIN;
SELECT complete('p', 'q');
ROLLBACK;
SELECT complete('p', 'q');
SELECT * FROM actors('hosted.round') WHERE actor_key = 'e';

-- # An aborted take gives all back
SELECT put('hosted.round', 'f', 'p', 'q');
BEGIN;
SELECT * FROM claims();
ROLLBACK;
SELECT claims FROM djactor.host;
BEGIN;
SAVEPOINT s;
SELECT * FROM claims();
ROLLBACK TO s;
COMMIT;
SELECT claims FROM djactor.host;
BEGIN;
SELECT * FROM claims();
SELECT complete('p');
COMMIT;
SELECT complete('q');
SELECT * FROM actors('hosted.round') WHERE actor_key = 'f';

-- # A thousand messages of one mailbox, a thousand mailboxes
INSERT INTO djactor.message (actor_type, actor_key, payload) SELECT 'hosted.round', CASE WHEN i % 2 = 0 THEN 'hot' ELSE 'k' || i END, to_jsonb(i) FROM generate_series(1, 2000) i;
CREATE PROCEDURE serve_all(mailboxes int, messages int) LANGUAGE plpgsql AS $$
DECLARE
	verdicts text[];
BEGIN
	LOOP
		SELECT djactor.complete(coalesce(array_agg(token), '{}'), coalesce(array_agg(id), '{}'), coalesce(array_agg(payload), '{}')) INTO verdicts
			FROM djactor.take(mailboxes, messages);
		EXIT WHEN verdicts = '{}';
		IF NOT 'done' = ALL (verdicts) THEN
			RAISE EXCEPTION '%', verdicts;
		END IF;
		COMMIT;
	END LOOP;
END $$;
SELECT complete('six');
CALL serve_all(300, 1000);
SELECT count(*), count(DISTINCT actor_key) AS actors, sum(turns) AS turns FROM djactor.actor WHERE actor_type = 'hosted.round' AND (actor_key = 'hot' OR actor_key ~ '^k');
SELECT state, turns FROM actors('hosted.round') WHERE actor_key = 'hot';

-- # The journal and the numbers have them all
SELECT outcome, count(*) FROM djactor.journal WHERE actor_type = 'hosted.round' GROUP BY 1;
SELECT handled, failed, retried, dead FROM djactor.stat WHERE actor_type = 'hosted.round';
SELECT count(*) AS waiting FROM djactor.message WHERE actor_type = 'hosted.round';

-- # Replies, and how long it took
SELECT djactor.send('hosted.round', 'g', '"asks"', wants_reply => true) AS ask \gset
SELECT * FROM claims();
SELECT djactor.complete(ARRAY[token('asks')], ARRAY[id('asks')], '{NULL}', '{"{\"the\": \"reply\"}"}', '{2000000}');
SELECT payload, error FROM djactor.reply WHERE message_id = :ask;
SELECT djactor.outcome(:ask);
SELECT finished_at - started_at BETWEEN '2 s' AND '30 s' AS two_seconds FROM djactor.journal WHERE actor_type = 'hosted.round' AND actor_key = 'g';

-- # take(0) takes nothing
SELECT put('hosted.round', 'h', 'p');
SELECT count(*) FROM djactor.take(0);
SELECT * FROM claims();
SELECT complete('p');

-- # wait_idle() waits for what hosts have, too
SELECT put('hosted.round', 'i', 'p');
SELECT djactor.wait_idle('10 ms', 'hosted.round');
SELECT * FROM claims();
SELECT djactor.wait_idle('10 ms', 'hosted.round');
SELECT complete('p');
SELECT djactor.wait_idle('10 s', 'hosted.round');

SELECT djactor.host_close();
SELECT djactor.drop_actor_type('hosted.round', true);
DROP PROCEDURE serve_all;
DROP TABLE t;
DELETE FROM djactor.reply;
\i :tests/sql/include/hosted_end.sql
