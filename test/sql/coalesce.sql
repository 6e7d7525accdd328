--
-- Messages of an actor with the same coalesce key are merged at their turn: keep, replace, debounce.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
\i :tests/sql/include/ask.sql
SELECT djactor.define_actor_type('merge', 'act', initial_state => '[]', max_attempts => 1, breaker_failures => NULL, journal => '1 h');
-- post: a message that is to be merged, under a name. payload n, and what it does besides.
CREATE FUNCTION post(name text, mode text, actor_key text DEFAULT 'a', asks boolean DEFAULT false, more jsonb DEFAULT '{}', coalesce_key text DEFAULT 'k',
	debounce interval DEFAULT NULL, debounce_limit interval DEFAULT NULL, priority int DEFAULT 0)
RETURNS void LANGUAGE sql AS $$
	INSERT INTO sent VALUES (name, djactor.send('merge', actor_key, jsonb_build_object('n', name) || more, wants_reply => asks, priority => priority,
		coalesce_key => coalesce_key, coalesce_mode => mode, debounce => debounce, debounce_limit => debounce_limit));
$$;
CREATE FUNCTION seen(actor_key text) RETURNS text LANGUAGE sql AS $$ SELECT string_agg(h ->> 'n', ' ') FROM handled('merge', actor_key) h $$;

-- # Bad values
CALL fails($$SELECT djactor.send('merge', 'a', coalesce_mode => 'keep')$$);
CALL fails($$SELECT djactor.send('merge', 'a', coalesce_key => '')$$);
CALL fails($$SELECT djactor.send('merge', 'a', coalesce_key => repeat('x', 513))$$);
CALL fails($$SELECT djactor.send('merge', 'a', coalesce_key => 'k', coalesce_mode => 'last')$$);
CALL fails($$SELECT djactor.send('merge', 'a', coalesce_key => 'k', coalesce_mode => 'debounce')$$);
CALL fails($$SELECT djactor.send('merge', 'a', coalesce_key => 'k', idempotency_key => 'i')$$);
CALL fails($$SELECT djactor.send('merge', 'a', coalesce_key => 'k', debounce => '0')$$);
CALL fails($$SELECT djactor.send('merge', 'a', coalesce_key => 'k', debounce => '-1 s')$$);
CALL fails($$SELECT djactor.send('merge', 'a', coalesce_key => 'k', debounce => '200 years')$$);
CALL fails($$SELECT djactor.send('merge', 'a', coalesce_key => 'k', debounce => '1 s', debounce_limit => '0')$$);
CALL fails($$SELECT djactor.send('merge', 'a', coalesce_key => 'k', debounce => '1 min', debounce_limit => '1 s')$$);
CALL fails($$SELECT djactor.send('merge', 'a', coalesce_key => 'k', debounce_limit => '1 s')$$);
CALL fails($$SELECT djactor.send('merge', 'a', coalesce_key => 'k', debounce => '1 s', coalesce_mode => 'keep')$$);
CALL fails($$SELECT djactor.send('merge', 'a', coalesce_key => 'k', debounce => '1 s', deliver_at => now())$$);
CALL fails($$SELECT djactor.send('merge', 'a', debounce => '1 s')$$);
CALL fails($$INSERT INTO djactor.message (actor_type, actor_key, coalesce_key, coalesce_until) VALUES ('merge', 'a', 'k', now())$$);
CALL fails($$INSERT INTO djactor.message (actor_type, actor_key, coalesce_until) VALUES ('merge', 'a', now())$$);

-- # keep: the first is handled, at its place; other keys, other actors and messages without a key are not concerned
SELECT djactor.pause('merge');
SELECT post('k1', 'keep'), post('x1', 'keep', coalesce_key => 'x'), post('k2', 'keep'), post('plain', NULL, coalesce_key => NULL), post('b1', 'keep', 'b'), post('k3', 'keep');
SELECT djactor.resume('merge');
CALL idle('merge');
SELECT seen('a') AS a, seen('b') AS b;
SELECT outcome, count(*) FROM djactor.journal WHERE actor_type = 'merge' GROUP BY 1 ORDER BY 1;
CALL wait_until($$(SELECT coalesced = 2 AND handled = 4 FROM djactor.stat WHERE actor_type = 'merge')$$);
SELECT post('k4', 'keep');
CALL idle('merge');
SELECT seen('a') AS "one that comes later is handled";

-- # replace, which is the default: the last is handled, at its place
SELECT djactor.pause('merge');
SELECT post('r1', 'replace', 'r'), post('between', NULL, 'r', coalesce_key => NULL), post('r2', NULL, 'r'), post('r3', 'replace', 'r'), post('after', NULL, 'r', coalesce_key => NULL);
INSERT INTO djactor.message (actor_type, actor_key, payload, coalesce_key) VALUES ('merge', 'r', '{"n": "r4"}', 'k');
SELECT djactor.resume('merge');
CALL idle('merge');
SELECT seen('r') AS r;

-- # Mixed modes: what counts is the mode of the later message
SELECT djactor.pause('merge');
SELECT post('m1', 'keep', 'm'), post('m2', 'replace', 'm'), post('m3', 'keep', 'm');
SELECT post('p1', 'replace', 'p'), post('p2', 'replace', 'p', priority => 10), post('p3', 'keep', 'p', priority => 20);
SELECT djactor.resume('merge');
CALL idle('merge');
SELECT seen('m') AS m, seen('p') AS p;

-- # Asks that are merged get the answer of the message that is handled
SELECT djactor.pause('merge');
SELECT post('ask 1', 'replace', 'q', true, '{"reply": 1}'), post('ask 2', 'replace', 'q', true, '{"reply": 2}'), post('ask 3', 'keep', 'q', true, '{"reply": 3}'),
	post('last', 'replace', 'q', false, '{"reply": 4}');
SELECT djactor.resume('merge');
CALL idle('merge');
SELECT seen('q') AS q;
SELECT name, payload, error FROM answer ORDER BY 1;
SELECT count(*) AS left FROM djactor.message WHERE actor_type = 'merge';
DELETE FROM djactor.reply;

-- ## ... also when the turn calls reply() or reply_error() itself, or defers its answer
SELECT djactor.pause('merge');
SELECT post('own 1', 'replace', 'q', true), post('own 2', 'replace', 'q', false, '{"do": "SELECT djactor.reply(''\"mine\"'')"}');
SELECT post('bad 1', 'replace', 'q', true, coalesce_key => 'bad'), post('bad 2', 'replace', 'q', true, '{"do": "SELECT djactor.reply_error(''\"no\"'')"}', coalesce_key => 'bad');
SELECT post('later 1', 'keep', 'q', true, '{"do": "SELECT djactor.defer_reply()"}', coalesce_key => 'later'), post('later 2', 'keep', 'q', true, coalesce_key => 'later');
SELECT djactor.resume('merge');
CALL idle('merge');
SELECT name, payload, error FROM answer ORDER BY 1;
SELECT * FROM waiting ORDER BY 1;
SELECT djactor.outcome(id_of('later 2'));
SELECT post('gives', NULL, 'q', false, jsonb_build_object('do', format('SELECT djactor.reply(''"at last"'', %s)', id_of('later 1'))), NULL);
CALL idle('merge');
SELECT name, payload, error FROM answer WHERE name LIKE 'later%' ORDER BY 1;
DELETE FROM djactor.reply;

-- ## ... and its failure, unless another message can still answer them
SELECT djactor.pause('merge');
SELECT post('fail 1', 'replace', 'f', true), post('fail 2', 'replace', 'f', false, '{"do": "SELECT 1/0"}');
SELECT djactor.resume('merge');
CALL idle('merge');
SELECT name, payload, error ->> 'reason' AS reason, error ->> 'error' AS error FROM answer ORDER BY 1;
SELECT reason FROM djactor.dead_letter WHERE actor_type = 'merge';
SELECT djactor.pause('merge');
SELECT post('cancel 1', 'replace', 'f', true), post('cancel 2', 'debounce', 'f', false, debounce => '1 h');
SELECT post('cancel 3', 'keep', 'f', true, priority => -1);
SELECT djactor.resume('merge');
CALL idle('merge');
SELECT * FROM waiting ORDER BY 1;
SELECT name FROM answer WHERE name LIKE 'cancel%';
SELECT djactor.cancel(id_of('cancel 2'));
SELECT name, error ->> 'reason' AS reason FROM answer WHERE name LIKE 'cancel%' ORDER BY 1;
SELECT * FROM waiting ORDER BY 1;
DELETE FROM djactor.reply;
DELETE FROM djactor.dead_letter WHERE actor_type = 'merge';

-- ## One that expires while it waits for that gets its error, alone
SELECT post('slow', 'debounce', 'e', debounce => '1 h');
INSERT INTO sent VALUES ('brief', djactor.send('merge', 'e', '{"n": "brief"}', wants_reply => true, expires_at => now() + interval '1 s', coalesce_key => 'k', coalesce_mode => 'keep'));
CALL wait_until($$EXISTS (SELECT FROM answer WHERE name = 'brief')$$);
SELECT name, payload, error ->> 'reason' AS reason FROM answer;
SELECT * FROM waiting;
SELECT djactor.cancel(id_of('slow'));
DELETE FROM djactor.reply;

-- # debounce: the last is handled when none has come for a while
SELECT post('d1', NULL, 'd', debounce => '1 s'), post('d2', NULL, 'd', debounce => '1.5 s');
SELECT post('d3', NULL, 'd', debounce => '4 s');
SELECT pg_sleep(2), seen('d') AS "not yet";
CALL wait_until($$seen('d') = 'd3'$$);

-- ## ... at the latest after the limit, though others come
CREATE PROCEDURE stream(seconds float, debounce interval, debounce_limit interval) LANGUAGE plpgsql AS $$
DECLARE
	until timestamptz := clock_timestamp() + make_interval(secs => seconds);
BEGIN
	WHILE clock_timestamp() < until LOOP
		PERFORM djactor.send('merge', 's', '{"n": "s"}', coalesce_key => 'k', debounce => debounce, debounce_limit => debounce_limit);
		COMMIT;
		PERFORM pg_sleep(0.02);
	END LOOP;
END $$;
CALL stream(3.3, '5 s', '5 s');
SELECT seen('s') AS "not before";
CALL wait_until($$seen('s') IS NOT NULL$$);
SELECT djactor.discard(id) FROM djactor.dead_letter WHERE actor_type = 'merge';
CALL stream(2.5, '500 ms', '1 s');
CALL wait_until($$NOT EXISTS (SELECT FROM djactor.message WHERE actor_type = 'merge')$$);
SELECT CASE WHEN turns BETWEEN 3 AND 8 THEN 'about one a second' ELSE turns || ' turns' END AS turns FROM djactor.actor WHERE actor_type = 'merge' AND actor_key = 's';

-- # More than are merged in one transaction
SELECT djactor.pause('merge');
SELECT count(post(n || '', 'keep', 'many')) FROM generate_series(1, 2500) n;
SELECT count(post(n || '', 'replace', 'more')) FROM generate_series(2501, 5000) n;
SELECT djactor.resume('merge');
CALL idle('merge');
SELECT seen('many') AS many, seen('more') AS more;
SELECT count(*) AS left FROM djactor.message WHERE actor_type = 'merge';

-- # In drain(), which moves the clock
BEGIN;
SELECT post('t1', 'keep', 't'), post('t2', 'keep', 't', true, '{"reply": "t2"}'), post('u1', NULL, 't', debounce => '1 h', coalesce_key => 'u', debounce_limit => '90 min');
SELECT djactor.drain() AS handled;
SELECT seen('t') AS t;
SELECT name, payload FROM answer;
SELECT djactor.drain(until => now() + interval '30 min') AS handled;
SELECT post('u2', NULL, 't', debounce => '2 h', coalesce_key => 'u');
SELECT djactor.drain(until => now() + interval '89 min') AS handled;
SELECT djactor.drain(until => now() + interval '91 min') AS handled;
SELECT seen('t') AS t;
ROLLBACK;

-- # A redrive is not merged, since dead letters have no coalesce key; stash() and stop(true) see messages with one as others
SELECT post('dies', 'keep', 'z', false, '{"do": "SELECT 1/0"}');
CALL idle('merge');
SELECT djactor.pause('merge');
SELECT count(djactor.redrive(id)) FROM djactor.dead_letter WHERE actor_type = 'merge';
SELECT post('z1', 'replace', 'z');
SELECT post('stashes', 'keep', 'y', true, '{"do": "SELECT djactor.stash()"}');
SELECT djactor.resume('merge');
CALL idle('merge');
SELECT seen('z') AS z, (SELECT count(*) FROM djactor.dead_letter WHERE actor_type = 'merge') AS dead;
SELECT name, aside FROM waiting ORDER BY 1;
SELECT post('y1', 'replace', 'y');
SELECT djactor.pause('merge', 'y');
SELECT post('y2', 'replace', 'y');
SELECT djactor.resume('merge', 'y');
SELECT post('ends', NULL, 'y', false, '{"do": "SELECT djactor.stop(true)"}', NULL);
CALL idle('merge');
SELECT count(*) AS left FROM djactor.message WHERE actor_type = 'merge';

-- # Hosted types: take() merges on its way, but nothing that it has handed out
SELECT djactor.define_actor_type('merge.hosted', NULL, hosted => true);
SELECT djactor.host_open('{merge.hosted}') > 0 AS opened;
SELECT djactor.send('merge.hosted', 'h', to_jsonb(n), coalesce_key => 'k', coalesce_mode => CASE WHEN n < 4 THEN 'replace' ELSE 'keep' END) > 0 AS sent FROM generate_series(1, 5) n;
SELECT djactor.send('merge.hosted', 'h', '"plain"') > 0, djactor.send('merge.hosted', 'h', '"other"', coalesce_key => 'l') > 0;
BEGIN;
SELECT payload FROM djactor.take(10, 10);
ROLLBACK;
SELECT array_agg(token ORDER BY id) AS tokens, array_agg(id ORDER BY id) AS ids FROM djactor.take(10, 10) \gset took_
SELECT djactor.send('merge.hosted', 'h', '6', coalesce_key => 'k') > 0 AS sent;
SELECT djactor.complete(:'took_tokens', :'took_ids', ARRAY['1', '2', '3']::jsonb[]);
SELECT payload FROM djactor.take(10, 10);
SELECT coalesced FROM djactor.stat WHERE actor_type = 'merge.hosted';
-- one that has replaced others, was given back, and stands before a later one
SELECT djactor.send('merge.hosted', 'g', to_jsonb(n), coalesce_key => 'k') > 0 AS sent FROM generate_series(1, 3) n;
SELECT payload, token, id FROM djactor.take(10, 10) \gset took_
SELECT djactor.release(ARRAY[:took_token]);
SELECT djactor.send('merge.hosted', 'g', to_jsonb(4), coalesce_key => 'k') > 0 AS sent;
SELECT payload FROM djactor.take(10, 10);
SELECT count(*) AS waiting FROM djactor.message WHERE actor_key = 'g';
SELECT djactor.host_close();

-- # What is dropped with its type: each ask gets one answer
SELECT djactor.pause('merge');
SELECT post('drop 1', 'replace', 'x', true), post('drop 2', 'debounce', 'x', true, debounce => '1 h');
SELECT djactor.resume('merge');
CALL wait_until($$EXISTS (SELECT FROM waiting WHERE aside = 'coalesced')$$);
SELECT djactor.drop_actor_type('merge', true), djactor.drop_actor_type('merge.hosted', true);
SELECT name, error ->> 'reason' AS reason FROM answer WHERE name LIKE 'drop%' ORDER BY 1;
DELETE FROM djactor.reply;
DELETE FROM djactor.dead_letter;
DELETE FROM djactor.journal;
DROP FUNCTION post, seen;
DROP PROCEDURE stream;
\i :tests/sql/include/ask_end.sql
