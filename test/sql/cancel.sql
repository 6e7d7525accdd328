--
-- Taking a message back with cancel().
-- Section 2 (cancel), section 3 points 6, 8, 16, 18 and 19.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
\i :tests/sql/include/ask.sql
SELECT djactor.define_actor_type('cancel', 'act', max_attempts => 5, backoff => '1 h', breaker_failures => NULL), djactor.define_actor_type('cancel.skip', 'act', retry_order => 'skip', backoff => '1 h');

-- # Waiting, delayed, before its retry (what it held back goes on then), stashed, deferred: true, once
SELECT djactor.pause('cancel');
SELECT put('waits', 'cancel', 'a', wants_reply => false), put('next', 'cancel', 'a', wants_reply => false), put('delayed', 'cancel', 'a', deliver_at => now() + interval '1 h', wants_reply => false);
SELECT djactor.cancel(id_of('waits')), djactor.cancel(id_of('delayed'));
SELECT djactor.cancel(id_of('waits')), djactor.cancel(id_of('delayed'));
SELECT name FROM waiting;
SELECT djactor.resume('cancel');
CALL idle('cancel');
-- handled, or unknown: false
SELECT djactor.cancel(id_of('next')), djactor.cancel(-1), djactor.cancel(NULL);
SELECT put('fails', 'cancel', 'r', '{"do": "SELECT 1 / 0"}'), put('held back', 'cancel', 'r', '{"reply": "goes on"}'), put('fails, skipped', 'cancel.skip', 'r', '{"do": "SELECT 1 / 0"}');
CALL wait_until('(SELECT count(*) = 2 FROM waiting WHERE attempts = 1)');
SELECT djactor.cancel(id_of('fails')), djactor.cancel(id_of('fails, skipped'));
CALL wait_until('EXISTS (SELECT FROM answer WHERE name = ''held back'')');
SELECT * FROM answer ORDER BY id_of(name);
SELECT put('stashed', 'cancel', 's', '{"do": "SELECT djactor.stash()"}'), put('deferred', 'cancel', 's', '{"do": "SELECT djactor.defer_reply() * 0"}');
CALL idle('cancel');
SELECT name, aside FROM waiting ORDER BY id_of(name);
SELECT djactor.cancel(id_of('stashed')), djactor.cancel(id_of('deferred'));
SELECT djactor.cancel(id_of('stashed')), djactor.cancel(id_of('deferred'));
SELECT name, error ->> 'reason' AS reason FROM answer WHERE name IN ('stashed', 'deferred') ORDER BY id_of(name);
-- no dead letter comes of it, and unstashing finds nothing
SELECT put('unstash', 'cancel', 's', '{"do": "SELECT djactor.unstash_all()"}', wants_reply => false);
CALL idle('cancel');
SELECT handled('cancel', 's');
SELECT count(*) AS dead FROM djactor.dead_letter WHERE actor_type LIKE 'cancel%';
SELECT * FROM waiting;

-- # A dead letter is no message any more
SELECT put('rejected', 'cancel', 'a', '{"do": "SELECT djactor.reject(''no'')"}', wants_reply => false);
CALL idle('cancel');
SELECT djactor.cancel(id_of('rejected'));
-- # One that was redriven is
BEGIN;
SELECT djactor.redrive(id_of('rejected')) > 0 AS redriven;
SELECT djactor.cancel(id_of('rejected'));
SELECT count(*) AS dead FROM djactor.dead_letter WHERE id = id_of('rejected');
ROLLBACK;

-- # In the transaction that has sent it; rolled back it was not cancelled
BEGIN;
SELECT put('sent', 'cancel', 'tx', '{"reply": "handled"}');
SAVEPOINT s;
SELECT djactor.cancel(id_of('sent'));
SELECT * FROM answer WHERE name = 'sent';
ROLLBACK TO SAVEPOINT s;
SELECT djactor.drain();
SELECT * FROM answer WHERE name = 'sent';
ROLLBACK;

-- # In a turn, what comes later in the same batch: it is not run. What came before it was handled
-- (after some turns that last the worker reads few messages at a time)
SELECT count(put('lasts ' || i, 'cancel', 'slow', '{"do": "SELECT pg_sleep(0.004)"}', wants_reply => false)) AS last FROM generate_series(1, 20) i;
CALL idle('cancel');
SELECT djactor.pause('cancel');
SELECT put('before', 'cancel', 'b', '{"n": "before"}', priority => 2);
SELECT put('own next', 'cancel', 'b', '{"n": "own next"}'), put('other''s', 'cancel', 'b2', '{"n": "other''s"}', priority => 1);
SELECT put('cancels', 'cancel', 'b', jsonb_build_object('do', format('SELECT concat_ws('' '', djactor.cancel(%s), djactor.cancel(%s), djactor.cancel(%s))',
	id_of('before'), id_of('own next'), id_of('own next'))), priority => 1);
SELECT djactor.resume('cancel');
CALL idle('cancel');
SELECT handled('cancel', 'b');
SELECT name, payload, error ->> 'reason' AS reason FROM answer WHERE name IN ('before', 'own next', 'cancels', 'other''s') ORDER BY id_of(name);
-- # A turn that cancels and fails has not; nor has one that caught its error
BEGIN;
SELECT djactor.define_actor_type('cancel.fails', 'act', max_attempts => 1);
SELECT put('kept', 'cancel', 'c', '{"n": "kept"}');
SELECT put('fails then', 'cancel.fails', 'c', jsonb_build_object('do', format('SELECT djactor.cancel(%s)::int / 0', id_of('kept'))), priority => 1);
SELECT put('kept, too', 'cancel', 'd', '{"n": "kept, too"}');
SELECT put('catches', 'cancel', 'd', jsonb_build_object('n', 'catches', 'do', format($$DO 'BEGIN
		PERFORM djactor.cancel(%s); RAISE ''caught'';
	EXCEPTION WHEN raise_exception THEN END'; SELECT NULL$$, id_of('kept, too'))), priority => 1);
SELECT djactor.drain(on_error => 'retry') > 0 AS drained;
SELECT handled('cancel', 'c');
SELECT handled('cancel', 'd');
ROLLBACK;
-- # Itself it cannot cancel
SELECT put('itself', 'cancel', 'e', '{"do": "SELECT djactor.cancel((djactor.message()).id)"}');
CALL wait_until('(SELECT count(*) = 1 FROM waiting WHERE name = ''itself'' AND attempts = 1)');
SELECT last_error FROM djactor.message WHERE id = id_of('itself');
SELECT djactor.cancel(id_of('itself'));
-- # An ask that the same batch has deferred, and one that it has stashed
BEGIN;
SELECT put('deferred here', 'cancel', 'f', '{"do": "SELECT djactor.defer_reply() * 0"}'), put('stashed here', 'cancel', 'f', '{"do": "SELECT djactor.stash()"}');
SELECT put('cancels both', 'cancel', 'f', jsonb_build_object('do', format('SELECT concat_ws('' '', djactor.cancel(%s), djactor.cancel(%s))', id_of('deferred here'), id_of('stashed here'))));
SELECT djactor.drain() > 0 AS drained;
SELECT name, payload, error ->> 'reason' AS reason FROM answer WHERE name LIKE '% here' ORDER BY id_of(name);
SELECT name, aside FROM waiting WHERE name LIKE '% here';
ROLLBACK;

-- # A timer's firing: so is the timer
BEGIN;
SELECT put('sets', 'cancel', 't', '{"do": "SELECT djactor.set_timer(''t'', ''1 min'', every => ''1 min'')"}', wants_reply => false);
SELECT djactor.drain() > 0 AS drained;
SELECT djactor.cancel(message_id) FROM djactor.timer WHERE actor_type = 'cancel';
SELECT count(*) AS timers FROM djactor.timer WHERE actor_type = 'cancel';
SELECT count(*) AS firings FROM djactor.message WHERE actor_type = 'cancel';
ROLLBACK;

SELECT djactor.drop_actor_type('cancel', true), djactor.drop_actor_type('cancel.skip', true);
DELETE FROM djactor.dead_letter WHERE actor_type LIKE 'cancel%';
\i :tests/sql/include/ask_end.sql
