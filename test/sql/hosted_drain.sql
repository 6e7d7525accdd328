--
-- drain_take(): turns of hosted types in one transaction, for tests: also of mail that the transaction has sent, with a clock that can be moved.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
\i :tests/sql/include/hosted.sql
SELECT djactor.define_actor_type('hosted', NULL, hosted => true, backoff => '10 min', backoff_max => '10 min', max_attempts => 2),
	djactor.define_actor_type('inside', 'collect');
-- next(until): takes one message, and shows its word
CREATE FUNCTION next(until timestamptz DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO taken (word, token, id) SELECT coalesce(payload #>> '{}', kind), t.token, t.id FROM djactor.drain_take(until) t;
	RETURN (SELECT word FROM taken ORDER BY serial DESC LIMIT 1 OFFSET CASE WHEN FOUND THEN 0 ELSE 1000000 END);
END $$;

-- # One message at a time, of hosted types only, also of what was just sent; then none
BEGIN;
SELECT next();
SELECT put('hosted', 'a', 'p', 'q'), put('inside', 'i', 's');
SELECT next();
SELECT complete('p');
SELECT next();
SELECT begin_turn('q');
SELECT djactor.send('hosted', 'c', '"sent in the turn"') > 0 AS sent;
CALL djactor.end_turn('"q"');
SELECT next();
SELECT complete('sent in the turn');
SELECT next();
SELECT * FROM actors('hosted');
SELECT payload FROM djactor.message WHERE actor_type = 'inside';
-- drain() leaves hosted types alone
SELECT put('hosted', 'a', 't');
SELECT djactor.drain();
SELECT payload FROM djactor.message;
SELECT next();
SELECT complete('t');
SELECT next();
ROLLBACK;
SELECT count(*) AS waiting FROM djactor.message;
SELECT count(*) AS actors FROM actors('hosted');

-- # Only one type, or one actor of it
BEGIN;
SELECT put('hosted', 'a', 'v'), put('hosted', 'b', 'w');
SELECT count(*) FROM djactor.drain_take(only_type => 'inside');
SELECT count(*) FROM djactor.drain_take(only_type => 'hosted', only_key => 'c');
SELECT payload FROM djactor.drain_take(only_type => 'hosted', only_key => 'b');
SELECT payload FROM djactor.drain_take(only_type => 'hosted', only_key => 'a');
ROLLBACK;
SELECT count(*) FROM djactor.drain_take(only_type => 'nowhere');
SELECT count(*) FROM djactor.drain_take(only_key => 'a');

-- # until moves the clock to delays, timers and retries, in their order
BEGIN;
INSERT INTO djactor.message (actor_type, actor_key, payload, deliver_at) VALUES ('hosted', 'x', '"in 2 h"', now() + interval '2 h'), ('hosted', 'y', '"in 5 min"', now() + interval '5 min'),
	('hosted', 'z', '"fails"', NULL);
SELECT next();
SELECT fail('fails');
SELECT next();
SELECT next(now() + interval '1 h');
SELECT round(extract(epoch FROM djactor.now() - now()) / 60) AS minute;
SELECT begin_turn('in 5 min');
SELECT djactor.set_timer('t', '1 min', '"timer"');
CALL djactor.end_turn();
SELECT next(now() + interval '1 h');
SELECT round(extract(epoch FROM djactor.now() - now()) / 60) AS minute;
SELECT complete('timer');
SELECT next(now() + interval '1 h');
SELECT round(extract(epoch FROM djactor.now() - now()) / 60) BETWEEN 10 AND 13 AS retried;
SELECT complete('fails');
SELECT next(now() + interval '1 h');
SELECT next(now() + interval '3 h');
SELECT complete('in 2 h');
SELECT next(now() + interval '3 h');
SELECT abs(extract(epoch FROM djactor.now() - clock_timestamp())) < 60 AS clock_is_back;
ROLLBACK;

-- # A turn that fails: back to a savepoint, fail(), and on
BEGIN;
SELECT put('hosted', 'a', 'p', 'q');
SELECT next();
SAVEPOINT s;
SELECT begin_turn('p');
SELECT djactor.send('inside', 'i', '1') > 0 AS sent;
ROLLBACK TO s;
SELECT fail('p', 'JA003');
SELECT reason, payload FROM djactor.dead_letter WHERE actor_type = 'hosted';
SELECT next();
-- given back, it comes again
SELECT release('q');
SELECT next();
-- not ended at all, it comes again, and the old token is stale
SELECT token('q') AS old \gset
SELECT next();
SELECT djactor.complete(ARRAY[:old], ARRAY[id('q')], '{1}');
SELECT complete('q');
SELECT next();
SELECT * FROM actors('hosted');
ROLLBACK;

-- # Taken within a savepoint that is undone, it is as if it had not been taken
BEGIN;
SELECT put('hosted', 'a', 'p');
SAVEPOINT s;
SELECT token, id FROM djactor.drain_take() \gset
SELECT djactor.complete(ARRAY[:token], ARRAY[:id], '{1}');
ROLLBACK TO s;
SELECT djactor.complete(ARRAY[:token], ARRAY[:id], '{1}');
SELECT next();
SELECT complete('p');
SELECT next();
COMMIT;
SELECT * FROM actors('hosted');

-- # What is drained no host takes
SELECT djactor.host_open('{hosted}') > 0 AS opened;
SELECT put('hosted', 'a', 'r');
BEGIN;
SELECT next();
SELECT * FROM claims();
SELECT complete('r');
COMMIT;
SELECT * FROM claims();
SELECT djactor.host_close();

-- # What has no turn is settled: expired, duplicates; a paused type is left alone
BEGIN;
SELECT djactor.send('hosted', 'e', '"expired"', wants_reply => true, expires_at => now() - interval '1 s') > 0, djactor.send('hosted', 'e', '"once"', idempotency_key => 'k') > 0,
	djactor.send('hosted', 'e', '"twice"', idempotency_key => 'k') > 0;
SELECT next();
SELECT complete('once');
SELECT next();
SELECT count(*) AS waiting FROM djactor.message;
SELECT put('hosted', 'e', 's');
SELECT djactor.pause('hosted');
SELECT next();
SELECT djactor.resume('hosted');
SELECT next();
ROLLBACK;

-- # A commit with what was drained and not ended gives it back
BEGIN;
SELECT put('hosted', 'f', 'p');
SELECT next();
COMMIT;
SELECT next();
SELECT djactor.host_open('{hosted}') > 0 AS opened;
CALL take_until('p');
SELECT complete('p');
SELECT djactor.host_close();

SELECT djactor.drop_actor_type('hosted', true), djactor.drop_actor_type('inside', true);
DELETE FROM djactor.reply;
DROP FUNCTION next;
\i :tests/sql/include/hosted_end.sql
