--
-- fail(): a failed attempt of a hosted turn is retried, put off, given up or suspended as one inside is; the claim has ended.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
\i :tests/sql/include/hosted.sql
SELECT djactor.define_actor_type('hosted', NULL, hosted => true, max_attempts => 3, backoff => '1 ms', backoff_max => '1 ms'),
	djactor.define_actor_type('hosted.once', NULL, hosted => true, max_attempts => 1),
	djactor.define_actor_type('hosted.suspends', NULL, hosted => true, max_attempts => 1, on_exhausted => 'suspend'),
	djactor.define_actor_type('hosted.skips', NULL, hosted => true, retry_order => 'skip', backoff => '1 h', backoff_max => '1 h'),
	djactor.define_actor_type('hosted.breaks', NULL, hosted => true, breaker_failures => 2, backoff => '1 ms', journal => '1 day');
SELECT djactor.host_open(array_agg(name)) > 0 AS opened FROM djactor.actor_type WHERE name LIKE 'hosted%';
CREATE VIEW waiting AS SELECT payload #>> '{}' AS word, attempts, put_offs, last_error, retry_at IS NOT NULL AS retries FROM djactor.message ORDER BY id;

-- # Retried until max_attempts are used up, in order; then a dead letter, and the next message
SELECT put('hosted', 'a', 'p', 'q');
SELECT * FROM claims();
SELECT fail('p');
SELECT * FROM waiting;
-- the claim has ended: nothing more of it can be done
SELECT complete('p', 'q'), fail('q'), fail('p');
CALL take_until('p', 'q');
SELECT fail('p', 'P0001');
CALL take_until('p', 'q');
SELECT payload, attempts FROM djactor.message WHERE id = id('p');
SELECT fail('p');
SELECT payload, reason, error, sqlstate, context, attempts FROM djactor.dead_letter WHERE actor_type = 'hosted';
SELECT * FROM claims();
SELECT complete('q');
SELECT * FROM actors('hosted');
SELECT failures FROM djactor.actor WHERE actor_type = 'hosted';

-- # What a turn before it in the claim has done stays
SELECT put('hosted', 'b', 'p', 'q', 'r');
SELECT * FROM claims();
SELECT complete('p');
SELECT fail('q');
SELECT complete('r');
CALL take_until('q', 'r');
SELECT state FROM taken ORDER BY serial DESC OFFSET 1 LIMIT 1;
SELECT complete('q', 'r');
SELECT * FROM actors('hosted') WHERE actor_key = 'b';

-- # JA003 rejects: a dead letter at once, whatever the type says
SELECT djactor.send('hosted', 'c', '"rejected"', wants_reply => true) AS ask \gset
SELECT * FROM claims();
SELECT fail('rejected', 'JA003');
SELECT payload, reason, error FROM djactor.dead_letter WHERE id = :ask;
SELECT error FROM djactor.reply WHERE message_id = :ask;
SELECT count(*) AS actors FROM actors('hosted') WHERE actor_key = 'c';

-- # The asker of a message that is given up gets an error
SELECT djactor.send('hosted.once', 'a', '"fails"', wants_reply => true) AS ask \gset
SELECT * FROM claims();
SELECT fail('fails', '22012');
SELECT error FROM djactor.reply WHERE message_id = :ask;

-- # Transient errors put off, and use up no attempt
SELECT put('hosted.once', w, w) FROM unnest('{40001,40P01,55P03,53200,25006,58030}'::text[]) w;
SELECT count(*) FROM claims();
SELECT w AS sqlstate, fail(w, w) FROM unnest('{40001,40P01,55P03,53200,25006,58030}'::text[]) w;
SELECT * FROM waiting;
CALL take_until('40001', '40P01', '55P03', '53200', '25006', '58030');
SELECT complete('40001', '40P01', '55P03', '53200', '25006', '58030');

-- # ... unless they recur while the server serves others
SELECT put('hosted.once', 'b', 'recurs');
SELECT * FROM claims();
SELECT fail('recurs', '53200');
CALL take_until('recurs');
SELECT fail('recurs', '53200');
CALL take_until('recurs');
SELECT fail('recurs', '53200');
CALL take_until('recurs');
SELECT put('hosted.once', 'd', 'served');
CALL take_until('served');
SELECT complete('served');
SELECT fail('recurs', '53200');
SELECT reason, sqlstate FROM djactor.dead_letter WHERE id = id('recurs');

-- # 57014 is the time limit, which is a failure
SELECT put('hosted.once', 'c', 'too long');
SELECT * FROM claims();
SELECT fail('too long', '57014');
SELECT reason, sqlstate FROM djactor.dead_letter WHERE id = id('too long');

-- # on_exhausted => 'suspend': the actor stops, its mail waits, and goes on with resume()
SELECT put('hosted.suspends', 'a', 'p', 'q');
SELECT * FROM claims();
SELECT fail('p');
SELECT actor_key, status FROM djactor.actor WHERE actor_type = 'hosted.suspends';
SELECT put('hosted.suspends', 'a', 'r');
SELECT count(*) FROM claims();
SELECT djactor.resume('hosted.suspends', 'a');
SELECT * FROM claims();
SELECT complete('p', 'q', 'r');

-- # retry_order => 'skip': later mail of the actor passes
SELECT put('hosted.skips', 'a', 'p', 'q');
SELECT * FROM claims();
SELECT fail('p');
SELECT * FROM claims();
SELECT complete('q');
SELECT djactor.cancel(id('p'));

-- # The breaker pauses the type; what is in flight of it is halted; the journal has the attempts
SELECT put('hosted.breaks', 'a', 'p'), put('hosted.breaks', 'b', 'q'), put('hosted.breaks', 'c', 'r'), put('hosted.breaks', 'd', 's');
SELECT * FROM claims();
SELECT fail('p'), fail('q');
SELECT fail('r');
SELECT paused, paused_reason FROM djactor.actor_type WHERE name = 'hosted.breaks';
SELECT complete('s');
SELECT count(*) FROM claims();
SELECT djactor.resume('hosted.breaks');
CALL take_until('s');
SELECT complete('s');
SELECT handled, failed, retried, dead FROM djactor.stat WHERE actor_type = 'hosted.breaks';

-- # A missing error text is no error of fail()
SELECT put('hosted.once', 'd', 'silent');
CALL take_until('silent');
SELECT djactor.fail(token('silent'), id('silent'), '38000', NULL);
SELECT error, context FROM djactor.dead_letter WHERE id = id('silent');

SELECT djactor.host_close();
SELECT count(djactor.drop_actor_type(name, true)) AS dropped FROM djactor.actor_type WHERE name LIKE 'hosted%';
DELETE FROM djactor.dead_letter WHERE actor_type LIKE 'hosted%';
DELETE FROM djactor.reply;
DROP VIEW waiting;
\i :tests/sql/include/hosted_end.sql
