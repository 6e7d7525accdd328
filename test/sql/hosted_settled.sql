--
-- What needs no turn is settled when a host takes mail: expired asks, duplicates, cancelled timers. Asks get one answer, keys count once.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
\i :tests/sql/include/hosted.sql
SELECT djactor.define_actor_type('hosted.settled', NULL, hosted => true, mailbox_limit => 4, max_attempts => 2, backoff => '1 ms');
SELECT djactor.host_open('{hosted.settled}') > 0 AS opened;
DELETE FROM djactor.reply;

-- # An ask that has expired is answered, and not handed out
SELECT djactor.send('hosted.settled', 'a', '"expired"', wants_reply => true, expires_at => now() - interval '1 s') AS ask \gset
SELECT put('hosted.settled', 'a', 'p');
SELECT * FROM claims();
SELECT error ->> 'reason' AS reason FROM djactor.reply WHERE message_id = :ask;
SELECT complete('p');
SELECT expired, handled FROM djactor.stat WHERE actor_type = 'hosted.settled';
-- ... also if nothing else is there
SELECT djactor.send('hosted.settled', 'b', '"expired"', wants_reply => true, expires_at => now() - interval '1 s') AS ask \gset
SELECT * FROM claims();
SELECT error ->> 'reason' AS reason FROM djactor.reply WHERE message_id = :ask;
SELECT count(*) AS waiting FROM djactor.message WHERE actor_type = 'hosted.settled';
SELECT claims FROM djactor.host;
SELECT count(*) AS actors FROM actors('hosted.settled') WHERE actor_key = 'b';
-- ... and what stands behind more of them than are read at once is handed out by the same call
SELECT count(djactor.send('hosted.settled', 'g', '"expired"', expires_at => now() - interval '1 s')) FROM generate_series(1, 3);
SELECT put('hosted.settled', 'g', 'behind');
SELECT words FROM claims(1, 1);
SELECT complete('behind');
-- ... so it is with messages that are merged
SELECT count(djactor.send('hosted.settled', 'g', '"merged"', coalesce_key => 'k')) FROM generate_series(1, 3);
SELECT djactor.send('hosted.settled', 'g', '"newest"', coalesce_key => 'k') > 0 AS sent;
SELECT words FROM claims(1, 1);
SELECT complete('newest');

-- # If the transaction of take aborts, nothing was settled
SELECT djactor.send('hosted.settled', 'b', '"expired"', wants_reply => true, expires_at => now() - interval '1 s') AS ask \gset
BEGIN;
SELECT * FROM claims();
SELECT count(*) AS answers FROM djactor.reply WHERE message_id = :ask;
ROLLBACK;
SELECT count(*) AS answers FROM djactor.reply WHERE message_id = :ask;
SELECT * FROM claims();
SELECT count(*) AS answers FROM djactor.reply WHERE message_id = :ask;

-- # A duplicate of a key that was handled is discarded, and its asker gets the first one's answer
SELECT djactor.send('hosted.settled', 'k', '"first"', wants_reply => true, idempotency_key => 'key') AS first \gset
SELECT djactor.send('hosted.settled', 'k', '"second"', wants_reply => true, idempotency_key => 'key') AS second \gset
SELECT * FROM claims(100, 1);
SELECT djactor.complete(ARRAY[token('first')], ARRAY[id('first')], '{1}', '{"\"the answer\""}');
SELECT * FROM claims();
SELECT m.payload FROM djactor.reply m WHERE message_id IN (:first, :second) ORDER BY message_id;
SELECT duplicates FROM djactor.stat WHERE actor_type = 'hosted.settled';
SELECT state, turns FROM actors('hosted.settled') WHERE actor_key = 'k';

-- # ... so it is not handed out together with the first
SELECT djactor.send('hosted.settled', 'l', '"first"', wants_reply => true, idempotency_key => 'key') AS first \gset
SELECT put('hosted.settled', 'l', 'between');
SELECT djactor.send('hosted.settled', 'l', '"second"', wants_reply => true, idempotency_key => 'key') AS second \gset
SELECT put('hosted.settled', 'l', 'third');
SELECT * FROM claims();
SELECT complete('first', 'between');
SELECT * FROM claims();
SELECT complete('third');
SELECT count(*) AS answers FROM djactor.reply m WHERE message_id IN (:first, :second);
SELECT state, turns FROM actors('hosted.settled') WHERE actor_key = 'l';

-- # A key whose message is dead-lettered is free
SELECT djactor.send('hosted.settled', 'm', '"first"', idempotency_key => 'key') > 0 AS sent;
SELECT * FROM claims();
SELECT fail('first', 'JA003');
SELECT djactor.send('hosted.settled', 'm', '"second"', idempotency_key => 'key') > 0 AS sent;
SELECT * FROM claims();
SELECT complete('second');
SELECT state, turns FROM actors('hosted.settled') WHERE actor_key = 'm';

-- # An ask that expires while it is in flight gets one answer
SELECT djactor.send('hosted.settled', 'n', '"slow"', wants_reply => true, expires_at => clock_timestamp() + interval '100 ms') AS ask \gset
SELECT * FROM claims();
CALL wait_until($$clock_timestamp() > (SELECT expires_at FROM djactor.message WHERE actor_key = 'n')$$);
SELECT complete('slow') IN ('{done}', '{gone}') AS ended;
CALL wait_until(format('EXISTS (SELECT FROM djactor.reply WHERE message_id = %s)', :ask));
SELECT count(*) AS answers FROM djactor.reply WHERE message_id = :ask;

-- # The timer's firing that was cancelled after it was handed out is gone
SELECT put('hosted.settled', 't', 'sets');
SELECT * FROM claims();
BEGIN;
SELECT begin_turn('sets');
SELECT djactor.set_timer('t', '1 ms', '"fires"');
CALL djactor.end_turn();
COMMIT;
CALL take_until('fires');
SELECT djactor.unschedule('hosted.settled', 't', 't');
SELECT complete('fires');
SELECT count(*) FROM claims();
SELECT count(*) AS timers FROM djactor.timer WHERE actor_type = 'hosted.settled';

-- # The limit counts what waits: a message that is in flight, too, but not the one that sends
SELECT put('hosted.settled', 'f', '1', '2', '3', '4');
SELECT * FROM claims(1, 2);
CALL fails($$SELECT put('hosted.settled', 'f', '5')$$);
SELECT complete('1');
SELECT put('hosted.settled', 'f', '5');
CALL fails($$SELECT put('hosted.settled', 'f', '6')$$);
BEGIN;
SELECT begin_turn('2');
SELECT djactor.send('hosted.settled', 'f', '"6"') > 0 AS sent;
CALL djactor.end_turn();
COMMIT;
SELECT * FROM claims();
SELECT complete('3', '4', '5', '6');

-- # The numbers of all that
SELECT handled, failed, dead, duplicates, expired FROM djactor.stat WHERE actor_type = 'hosted.settled';
SELECT count(*) AS waiting FROM djactor.message WHERE actor_type = 'hosted.settled';
SELECT claims FROM djactor.host;

SELECT djactor.host_close();
SELECT djactor.drop_actor_type('hosted.settled', true);
DELETE FROM djactor.dead_letter WHERE actor_type = 'hosted.settled';
DELETE FROM djactor.reply;
\i :tests/sql/include/hosted_end.sql
