--
-- What task queues need of hosted, stateless types: who runs a message, what is known of failed attempts, results without an ask, priorities.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
\i :tests/sql/include/hosted.sql
SELECT djactor.define_actor_type('tasks', NULL, hosted => true, stateless => true, max_attempts => 2, backoff => '1 ms', backoff_max => '1 ms',
	journal => '1 day');
SELECT djactor.define_actor_type('plain', NULL, hosted => true, journal => '1 day');
SELECT djactor.host_open('{tasks,plain}', name => 'host 1') > 0 AS opened;
CREATE FUNCTION state_of(word text) RETURNS TABLE (state text, host text, since boolean) LANGUAGE sql AS $$
	SELECT state, host, since > now() - interval '1 hour' FROM djactor.hosted_state((SELECT m.id FROM djactor.message m WHERE m.payload #>> '{}' = word));
$$;

-- # A message waits, is run by a host, and is gone
SELECT put('tasks', 'a', 'p', 'q', 'r');
SELECT * FROM state_of('p');
SELECT * FROM claims();
SELECT w, (state_of(w)).* FROM unnest('{p,q,r}'::text[]) w;
-- once a turn of the claim is done, the next one is the first that is left
SELECT complete('p');
SELECT * FROM djactor.hosted_state(id('p'));
SELECT w, (state_of(w)).* FROM unnest('{q,r}'::text[]) w;
-- begin_turn() says which it is, also after an abort
BEGIN;
SELECT begin_turn('q');
SELECT w, (state_of(w)).state FROM unnest('{q,r}'::text[]) w;
ROLLBACK;
SELECT w, (state_of(w)).state FROM unnest('{q,r}'::text[]) w;
SELECT release('q');
SELECT w, (state_of(w)).* FROM unnest('{q,r}'::text[]) w;
CALL take_until('q', 'r');
SELECT complete('q', 'r');
-- what is delayed waits, whoever has its mailbox
SELECT djactor.send('tasks', 'a', '"delayed"', deliver_at => now() + interval '1 h') > 0 AS sent;
SELECT put('tasks', 'a', 's');
SELECT * FROM claims();
SELECT w, (state_of(w)).state FROM unnest('{delayed,s}'::text[]) w;
SELECT complete('s');
SELECT djactor.cancel((SELECT id FROM djactor.message WHERE payload = '"delayed"'));
SELECT * FROM djactor.hosted_state(-1);
SELECT djactor.hosted_state(NULL) IS NULL AS strict;
-- a type that is not hosted
SELECT djactor.define_actor_type('inside', 'collect'), djactor.pause('inside');
SELECT put('inside', 'a', 'inside');
SELECT * FROM state_of('inside');

-- # What fail() is told in meta goes with the message: to the next attempt, the dead letter, the journal
CREATE FUNCTION fail_with(word text, meta jsonb, sqlstate text DEFAULT '38000') RETURNS text LANGUAGE sql AS $$
	SELECT djactor.fail(token(word), id(word), sqlstate, 'no', 'line 1', meta);
$$;
SELECT put('tasks', 'b', 'x');
SELECT * FROM claims();
CALL fails('SELECT fail_with(''x'', ''[1]'')');
CALL fails('SELECT fail_with(''x'', ''null'')');
SELECT fail_with('x', '{"n": 1}');
SELECT attempts, meta FROM djactor.message WHERE payload = '"x"';
CALL take_until('x');
SELECT fail('x');
SELECT reason, attempts, meta FROM djactor.dead_letter WHERE payload = '"x"';
SELECT djactor.redrive(id('x')) = id('x') AS redriven;
CALL take_until('x');
SELECT fail_with('x', '{"n": 2}', '40001');
SELECT put('tasks', 'c', 'meta');
CALL take_until('x', 'meta');
SELECT complete('x', 'meta');
SELECT payload, outcome, attempts, meta FROM djactor.journal WHERE actor_type = 'tasks' AND actor_key IN ('b', 'c') ORDER BY id;
-- messages of djactor's own have a meta of their own
SELECT djactor.schedule('tasks', 'd', 'tick', after => '1 ms', payload => '"tick"') > now() - interval '1 min' AS set;
CALL take_until('tick');
SELECT fail_with('tick', '{"n": 3}');
SELECT meta ? 'n' AS told, meta ->> 'name' AS name FROM djactor.message WHERE id = id('tick');
SELECT djactor.cancel(id('tick'));

-- # The journal of a stateless type has the reply also if nobody has asked; that of another type has not
SELECT put('tasks', 'e', 't1', 't2', 't3'), put('plain', 'e', 'p1');
CALL take_until('t1', 't2', 't3', 'p1');
SELECT djactor.complete(ARRAY[token('t1'), token('p1')], ARRAY[id('t1'), id('p1')], ARRAY[NULL, '{}']::jsonb[], ARRAY['{"r": 1}', '{"r": 2}']::jsonb[]);
BEGIN;
SELECT begin_turn('t2');
CALL djactor.end_turn(NULL, '"r3"');
COMMIT;
SELECT complete('t3');
SELECT payload, reply FROM djactor.journal WHERE actor_type IN ('tasks', 'plain') AND actor_key = 'e' ORDER BY payload;
SELECT count(*) AS replies FROM djactor.reply;

-- # Mailboxes of a stateless type are handed out by priority, and in their order within one
CREATE FUNCTION put_by_priority(type text, priorities int[]) RETURNS void LANGUAGE sql AS $$
	INSERT INTO djactor.message (actor_type, actor_key, payload, priority)
		SELECT type, 'k' || n, to_jsonb(format('%s.%s', p, n)), p FROM unnest(priorities) WITH ORDINALITY u (p, n) ORDER BY n;
$$;
CREATE FUNCTION handed_out(n int) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	words text := '';
BEGIN
	FOR i IN 1 .. n LOOP
		words := words || coalesce((SELECT c.words FROM claims(1, 1) c), '-') || ' ';
	END LOOP;
	RETURN words;
END $$;
SELECT put_by_priority('tasks', '{0,5,0,-100,100,5,-100,0}');
SELECT handed_out(2);
INSERT INTO djactor.message (actor_type, actor_key, payload, priority) VALUES ('tasks', 'k9', '"7.9"', 7), ('tasks', 'k10', '"-1.10"', -1), ('tasks', 'k11', '"5.11"', 5);
-- what is given back comes before others of its priority
SELECT release('5.2');
SELECT handed_out(10);
SELECT complete('100.5'), complete('5.2', '7.9', '5.6', '5.11', '0.1', '0.3', '0.8', '-1.10', '-100.4', '-100.7');
SELECT handed_out(1);
-- with more priorities than are told apart, those that are the nearest are taken together
SELECT put_by_priority('tasks', ARRAY(SELECT (p * 7) % 20 FROM generate_series(1, 40) p));
SELECT handed_out(40) AS words \gset
SELECT count(*) AS all, count(DISTINCT w) AS distinct FROM unnest(string_to_array(trim(:'words'), ' ')) w;
SELECT bool_and(a.n < b.n) AS in_order
FROM unnest(string_to_array(trim(:'words'), ' ')) WITH ORDINALITY a (w, n), unnest(string_to_array(trim(:'words'), ' ')) WITH ORDINALITY b (w, n)
WHERE split_part(a.w, '.', 1)::int >= split_part(b.w, '.', 1)::int + 6;
SELECT cardinality(complete(VARIADIC string_to_array(trim(:'words'), ' '))) AS done;
-- another type goes by the order in which they came
SELECT put_by_priority('plain', '{0,5,-100,100}');
SELECT handed_out(4);
SELECT complete('0.1', '5.2', '-100.3', '100.4');
-- a type that changes while its mail waits: what waits is of one priority
SELECT put_by_priority('plain', '{0,5}');
SELECT djactor.alter_actor_type('plain', stateless => true);
INSERT INTO djactor.message (actor_type, actor_key, payload, priority) VALUES ('plain', 'k3', '"-1.3"', -1), ('plain', 'k4', '"1.4"', 1);
SELECT handed_out(2);
SELECT djactor.alter_actor_type('plain', stateless => false);
SELECT handed_out(2);

SELECT djactor.host_close();
SELECT djactor.drop_actor_type(name, discard => true) FROM djactor.actor_type WHERE name IN ('tasks', 'plain', 'inside');
DELETE FROM djactor.journal;
DELETE FROM djactor.dead_letter;
DROP FUNCTION state_of, fail_with, put_by_priority, handed_out;
\i :tests/sql/include/hosted_end.sql
