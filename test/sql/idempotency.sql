--
-- Idempotency keys: what was handled is not handled again, and who asks again gets the same answer.
-- Section 2 (idempotency_key), section 3 points 1, 11, 18 and 19.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
\i :tests/sql/include/ask.sql
SELECT djactor.define_actor_type('once', 'act', max_attempts => 2, backoff => '1 ms', breaker_failures => NULL);
-- once: a message that says which one it is
CREATE FUNCTION once(name text, idempotency_key text, actor_key text DEFAULT 'a', wants_reply boolean DEFAULT false, message jsonb DEFAULT '{}', expires_at timestamptz DEFAULT NULL)
RETURNS void LANGUAGE sql AS $$
	SELECT put(name, 'once', actor_key, jsonb_build_object('n', name, 'reply', name) || message, wants_reply => wants_reply, idempotency_key => idempotency_key, expires_at => expires_at) $$;
CREATE FUNCTION seen(actor_key text DEFAULT 'a') RETURNS text LANGUAGE sql AS $$ SELECT string_agg(h ->> 'n', ', ') FROM handled('once', actor_key) h $$;

-- # Accepted, and handled once: in one batch, in later ones, in the INSERT of both
SELECT djactor.pause('once');
SELECT once('1', 'k'), once('2', 'k');
INSERT INTO djactor.message (actor_type, actor_key, payload, idempotency_key) SELECT 'once', 'a', jsonb_build_object('n', 'bulk ' || g), 'bulk' FROM generate_series(1, 3) g;
SELECT djactor.resume('once');
CALL idle('once');
SELECT seen();
SELECT once('3', 'k');
CALL idle('once');
SELECT seen();
-- nothing is left of the others, and they are no dead letters
SELECT * FROM waiting;
SELECT count(*) AS dead FROM djactor.dead_letter WHERE actor_type = 'once';
SELECT actor_key, idempotency_key, answered FROM djactor.idempotency WHERE actor_type = 'once' ORDER BY 1, 2;
-- # Another actor's key is another key, so is one that differs in case; without a key nothing is compared
SELECT once('4', 'k', 'b'), once('5', 'K'), once('6', NULL), once('7', NULL);
CALL idle('once');
SELECT seen(), seen('b');
-- # No turn, no row: a duplicate does not count as one
SELECT actor_key, turns FROM djactor.actor WHERE actor_type = 'once' ORDER BY 1;
TRUNCATE sent;

-- # The asker of a duplicate gets the reply of the first one, whether that one was an ask or not
SELECT once('asked', 'asks', wants_reply => true), once('asked again', 'asks', wants_reply => true), once('said again', 'asks'),
	once('said', 'says'), once('asked then', 'says', wants_reply => true),
	once('replied', 'replies', message => '{"do": "SELECT djactor.reply(''\"by reply()\"'')"}'), once('asked after reply()', 'replies', wants_reply => true),
	once('refused', 'refuses', message => '{"do": "SELECT djactor.reply_error(''404'')"}', wants_reply => true), once('refused again', 'refuses', wants_reply => true),
	once('silent', 'is silent', message => '{"reply": null}'), once('asked the silent', 'is silent', wants_reply => true);
SELECT put('no reply', 'once', 'a', idempotency_key => 'none', wants_reply => false), put('asked for none', 'once', 'a', idempotency_key => 'none');
CALL idle('once');
SELECT * FROM answer ORDER BY id_of(name);
SELECT * FROM waiting;
TRUNCATE sent;

-- # Also when the first one's reply is deferred: together with it, and those that come later
BEGIN;
SELECT once('first', 'deferred', wants_reply => true, message => '{"do": "SELECT djactor.defer_reply() * 0"}'), once('second', 'deferred', wants_reply => true),
	once('no ask', 'deferred');
SELECT djactor.drain() >= 0;
SELECT name, aside FROM waiting ORDER BY id_of(name);
SELECT * FROM answer;
-- what is set aside is no mail
SELECT count(*) FROM djactor.mailbox WHERE actor_type = 'once';
SELECT djactor.send('once', 'other', jsonb_build_object('do', format('SELECT djactor.reply(''"at last"'', %s)', id_of('first')))) > 0;
SELECT djactor.drain() > 0;
SELECT once('third', 'deferred', wants_reply => true);
SELECT djactor.drain() >= 0;
SELECT * FROM answer ORDER BY id_of(name);
SELECT * FROM waiting;
ROLLBACK;
-- # an error that comes later, too
BEGIN;
SELECT once('first', 'deferred', wants_reply => true, message => '{"do": "SELECT djactor.defer_reply() * 0"}'), once('second', 'deferred', wants_reply => true);
SELECT djactor.drain() >= 0;
SELECT djactor.send('once', 'other', jsonb_build_object('do', format('SELECT djactor.reply_error(''404'', %s)', id_of('first')))) > 0;
SELECT djactor.drain() > 0;
SELECT * FROM answer ORDER BY id_of(name);
ROLLBACK;
-- # A duplicate that waits so can expire, or be cancelled: it alone
BEGIN;
SELECT once('first', 'deferred', wants_reply => true, message => '{"do": "SELECT djactor.defer_reply() * 0"}'),
	once('expires', 'deferred', wants_reply => true, expires_at => now() + '1 min'), once('cancelled', 'deferred', wants_reply => true), once('patient', 'deferred', wants_reply => true);
SELECT djactor.drain() >= 0;
SELECT djactor.cancel(id_of('cancelled'));
SELECT djactor.drain(until => now() + '2 min') >= 0;
SELECT name, payload, error ->> 'reason' AS reason FROM answer ORDER BY id_of(name);
SELECT name, aside FROM waiting ORDER BY id_of(name);
-- the key is still taken
SELECT once('late', 'deferred', wants_reply => true);
SELECT djactor.drain() >= 0;
SELECT djactor.send('once', 'other', jsonb_build_object('do', format('SELECT djactor.reply(''"at last"'', %s)', id_of('first')))) > 0;
SELECT djactor.drain() > 0;
SELECT name, payload, error ->> 'reason' AS reason FROM answer ORDER BY id_of(name);
SELECT count(*) AS turns_of_late FROM handled('once', 'a') h WHERE h ->> 'n' = 'late';
ROLLBACK;

-- # The first one failed, was rejected, expired or was cancelled: it was not handled, so its key is free
BEGIN;
SELECT once('fails', 'k1', 'f', message => '{"do": "SELECT 1 / 0"}'), once('after it', 'k1', 'f'),
	once('rejects', 'k2', 'f', message => '{"do": "SELECT djactor.reject(''no'')"}'), once('after that', 'k2', 'f'),
	once('expired', 'k3', 'f', expires_at => now()), once('expired ask', 'k3', 'f', wants_reply => true, expires_at => now()), once('in time', 'k3', 'f'),
	once('cancelled', 'k4', 'f'), once('instead', 'k4', 'f');
SELECT djactor.cancel(id_of('cancelled'));
SELECT djactor.drain(on_error => 'retry', until => now() + '1 min') > 0;
SELECT seen('f');
ROLLBACK;
-- # So does an open ask that is cancelled, or expires: its duplicates get the same error, later ones are handled
BEGIN;
SELECT once('cancelled', 'k1', 'f', wants_reply => true, message => '{"do": "SELECT djactor.defer_reply() * 0"}'), once('its duplicate', 'k1', 'f', wants_reply => true);
SELECT djactor.drain() >= 0;
SELECT djactor.cancel(id_of('cancelled'));
SELECT name, error ->> 'reason' AS reason FROM answer ORDER BY id_of(name);
SELECT once('instead', 'k1', 'f', wants_reply => true);
SELECT djactor.drain() > 0;
SELECT name, payload FROM answer WHERE name = 'instead';
ROLLBACK;
-- # A failed attempt has not taken the key either
CREATE SEQUENCE attempt;
SELECT once('second attempt', 'k5', 'r', wants_reply => true, message => '{"do": "SELECT djactor.reply(''\"done\"''), 1 / (nextval(''attempt'') - 1)"}'), once('duplicate', 'k5', 'r', wants_reply => true);
CALL idle('once');
SELECT * FROM answer ORDER BY id_of(name);
SELECT seen('r');
TRUNCATE sent;
DROP SEQUENCE attempt;

-- # What redrive() brings back is never a duplicate, though its key was used meanwhile
CREATE TABLE switch (broken int);
INSERT INTO switch VALUES (0);
SELECT once('dead', 'k6', 'd', message => '{"do": "SELECT 1 / broken FROM switch"}');
CALL idle('once');
SELECT once('meanwhile', 'k6', 'd', wants_reply => true);
CALL idle('once');
UPDATE switch SET broken = 1;
SELECT djactor.redrive(id_of('dead')) = id_of('dead') AS redriven;
CALL idle('once');
SELECT seen('d');
-- and the key is still taken
SELECT once('duplicate', 'k6', 'd', wants_reply => true);
CALL idle('once');
SELECT seen('d');
SELECT count(*) AS answers FROM answer;
TRUNCATE sent;
DROP TABLE switch;

-- # Stashed, the message has not been handled: another one with its key is, and it is the duplicate then
BEGIN;
SELECT once('stashed', 'k7', 's', wants_reply => true, message => '{"do": "SELECT djactor.stash()"}'), once('handled', 'k7', 's', wants_reply => true);
SELECT put('go on', 'once', 's', '{"n": "unstash", "do": "SELECT djactor.unstash_all() * 0"}', wants_reply => false);
SELECT djactor.drain() > 0;
SELECT seen('s');
SELECT * FROM answer ORDER BY id_of(name);
SELECT * FROM waiting;
ROLLBACK;

-- # Stopping the actor does not make its keys free: what was handled was handled
BEGIN;
SELECT once('before', 'k8', 'gone', wants_reply => true), put('stops', 'once', 'gone', '{"do": "SELECT djactor.stop()"}', wants_reply => false), once('after', 'k8', 'gone', wants_reply => true);
SELECT djactor.drain() > 0;
SELECT * FROM answer ORDER BY id_of(name);
ROLLBACK;

-- # The key is kept for djactor.idempotency_retention from completion on
SELECT once('1', 'retention', 'old'), once('asks', 'open', 'old', wants_reply => true, message => '{"do": "SELECT djactor.defer_reply() * 0"}');
CALL idle('once');
SELECT seen('old');
ALTER SYSTEM SET djactor.idempotency_retention = '1 s';
SELECT pg_reload_conf();
SELECT pg_sleep(1.2);
SELECT once('2', 'retention', 'old');
CALL idle('once');
SELECT seen('old');
-- an ask that is still open is not complete
SELECT once('open still', 'open', 'old', wants_reply => true);
CALL idle('once');
SELECT name, aside FROM waiting ORDER BY id_of(name);
ALTER SYSTEM RESET djactor.idempotency_retention;
SELECT pg_reload_conf();
CALL refused('SET djactor.idempotency_retention = ''1 h''');

-- # A key has 1 to 512 bytes
CALL fails('SELECT djactor.send(''once'', ''a'', idempotency_key => '''')');
CALL fails('SELECT djactor.send(''once'', ''a'', idempotency_key => repeat(''x'', 513))');
SELECT djactor.send('once', 'a', idempotency_key => repeat('x', 512)) > 0 AS sent;
-- # Its asker is an actor: the error of a duplicate looks like that of the first one
CREATE FUNCTION asker(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	m djactor.message := djactor.message();
BEGIN
	IF m.kind = 'user' THEN
		PERFORM djactor.send('once', 'asked', message, wants_reply => true, idempotency_key => 'from actors');
		RETURN state;
	END IF;
	RETURN collect(state, jsonb_build_object('kind', m.kind, 'payload', m.payload, 'meta', m.meta));
END $$;
BEGIN;
SELECT djactor.define_actor_type('once.asker', 'asker');
SELECT djactor.send('once.asker', '1', '{"do": "SELECT djactor.reply_error(''404'')"}') > 0;
SELECT djactor.drain() > 0;
SELECT djactor.send('once.asker', '2', '{}') > 0;
SELECT djactor.drain() > 0;
SELECT actor_key, state FROM djactor.actor WHERE actor_type = 'once.asker' ORDER BY 1;
ROLLBACK;

SELECT djactor.drop_actor_type('once', true);
SELECT count(*) AS keys FROM djactor.idempotency WHERE actor_type = 'once';
DROP FUNCTION once, seen, asker;
\i :tests/sql/include/ask_end.sql
