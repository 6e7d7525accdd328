--
-- Asks whose message does not come to its end: the answer is an error.
-- Section 2 (djactor.reply.error), section 3 points 13, 18 and 23.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
\i :tests/sql/include/ask.sql
SELECT djactor.define_actor_type('error', 'act', max_attempts => 2, backoff => '1 ms'),
	djactor.define_actor_type('error.suspend', 'act', max_attempts => 1, on_exhausted => 'suspend'),
	djactor.define_actor_type('error.full', 'act', mailbox_limit => 1, on_full => 'dead_letter'),
	djactor.define_actor_type('error.raise', 'act', mailbox_limit => 1),
	djactor.define_actor_type('error.dropped', 'act');

-- # failed and rejected: by a worker
SELECT put('failed', 'error', 'a', '{"do": "SELECT 1 / 0"}'), put('failed after reply()', 'error', 'a', '{"do": "SELECT djactor.reply(''1''), 1 / 0"}'),
	put('rejected', 'error', 'a', '{"do": "SELECT djactor.reject(''no such order'')"}'),
	put('rejected after reply()', 'error', 'a', '{"do": "SELECT djactor.reply(''1''), djactor.reject(''no'')"}'),
	put('raised JA003', 'error', 'a', $${"do": "DO 'BEGIN RAISE ''raised'' USING ERRCODE = ''JA003''; END'"}$$);
CALL idle('error');
SELECT * FROM answer ORDER BY id_of(name);
SELECT name, reason, attempts, wants_reply FROM sent JOIN djactor.dead_letter USING (id) ORDER BY id;
TRUNCATE sent;

-- # expired: it was not run, and is no dead letter
SELECT put('expired', 'error', 'a', '{"reply": 1}', expires_at => now() - interval '1 s'),
	put('expires now', 'error', 'a', '{"reply": 1}', expires_at => now()),
	put('no ask', 'error', 'a', '{"reply": 1}', expires_at => now() - interval '1 s', wants_reply => false);
CALL idle('error');
SELECT * FROM answer ORDER BY id_of(name);
SELECT name, reason FROM sent JOIN djactor.dead_letter USING (id) ORDER BY id;
TRUNCATE sent;

-- # expired while it waited for its retry
BEGIN;
SELECT put('retried too late', 'error', 'late', '{"do": "SELECT 1 / 0"}', expires_at => now());
SELECT djactor.drain(on_error => 'retry', until => now() + '1 min');
SELECT name, error ->> 'reason' AS reason FROM answer;
ROLLBACK;

BEGIN;
SELECT djactor.define_actor_type('error.slow', 'act', backoff => '1 h');
SELECT put('failed, then too late', 'error.slow', 'late', '{"do": "SELECT 1 / 0"}', expires_at => now() + interval '30 min');
SELECT djactor.drain(on_error => 'retry', until => now() + '3 h');
SELECT * FROM answer;
ROLLBACK;

-- # cancelled
BEGIN;
SELECT put('cancelled', 'error', 'c', '{"reply": 1}');
SELECT djactor.cancel(id_of('cancelled')), djactor.cancel(id_of('cancelled'));
SELECT djactor.drain();
SELECT * FROM answer;
ROLLBACK;

-- # stopped: asks that were waiting go to the fresh actor, unless they are discarded
BEGIN;
SELECT put('stops', 'error', 's', '{"do": "SELECT djactor.stop()", "reply": "bye"}'), put('next', 'error', 's', '{"reply": "hello"}');
SELECT djactor.drain();
SELECT * FROM answer ORDER BY id_of(name);
ROLLBACK;
BEGIN;
SELECT put('stops', 'error', 's', '{"do": "SELECT djactor.stop(discard => true)", "reply": "bye"}'), put('next', 'error', 's', '{"reply": "hello"}');
SELECT djactor.drain();
SELECT * FROM answer ORDER BY id_of(name);
SELECT name, reason FROM sent JOIN djactor.dead_letter USING (id);
ROLLBACK;

-- # mailbox_full: answered in the sender's own transaction; where the type raises, nothing was sent
BEGIN;
SELECT put('first', 'error.full', 'a'), put('second', 'error.full', 'a');
SELECT * FROM answer;
ROLLBACK;
BEGIN;
SELECT put('first', 'error.raise', 'a');
CALL fails('SELECT put(''second'', ''error.raise'', ''a'')');
SELECT * FROM answer;
ROLLBACK;

-- # dropped: what waits, what is delayed, what is deferred
SELECT djactor.pause('error.dropped');
SELECT put('waits', 'error.dropped', 'a'), put('delayed', 'error.dropped', 'a', deliver_at => now() + interval '1 h');
SELECT put('no ask', 'error.dropped', 'a', wants_reply => false);
CALL fails('SELECT djactor.drop_actor_type(''error.dropped'')');
SELECT djactor.drop_actor_type('error.dropped', discard => true);
SELECT * FROM answer ORDER BY id_of(name);
TRUNCATE sent;
BEGIN;
SELECT djactor.define_actor_type('error.dropped', 'act');
SELECT put('deferred', 'error.dropped', 'a', '{"do": "SELECT djactor.defer_reply() * 0"}'), put('stashed', 'error.dropped', 'a', '{"do": "SELECT djactor.stash()"}');
SELECT djactor.drain() = 2 AS both;
SELECT name, aside FROM waiting ORDER BY id_of(name);
SELECT djactor.drop_actor_type('error.dropped', discard => true);
SELECT * FROM answer ORDER BY id_of(name);
ROLLBACK;

-- # suspended: open until the actor goes on
SELECT put('suspended', 'error.suspend', 'a', '{"do": "SELECT 1 / 0"}'), put('behind', 'error.suspend', 'a', '{"reply": "at last"}');
CALL idle('error.suspend');
SELECT name, attempts FROM waiting ORDER BY id_of(name);
SELECT * FROM answer;
SELECT djactor.cancel(id_of('suspended')), djactor.resume('error.suspend', 'a');
CALL idle('error.suspend');
SELECT * FROM answer ORDER BY id_of(name);

SELECT djactor.drop_actor_type(name, true) FROM djactor.actor_type WHERE name LIKE 'error%';
\i :tests/sql/include/ask_end.sql
