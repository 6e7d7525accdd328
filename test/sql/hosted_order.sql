--
-- Mailboxes and messages are handed out in the order that all mail has: priority, then id; the mailbox that has waited longest first;
-- types take turns; concurrency is how many mailboxes of a type are taken at the same time.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
\i :tests/sql/include/hosted.sql
SELECT djactor.define_actor_type('hosted', NULL, hosted => true), djactor.define_actor_type('hosted.two', NULL, hosted => true),
	djactor.define_actor_type('hosted.limited', NULL, hosted => true, concurrency => 2);
SELECT djactor.host_open('{hosted,hosted.two,hosted.limited}') > 0 AS opened;
-- handed(mailboxes, messages): in the order of take()
CREATE FUNCTION handed(mailboxes int, messages int DEFAULT 1) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	start int := nextval('public.taken_serial_seq');
BEGIN
	PERFORM claims(mailboxes, messages);
	RETURN (SELECT string_agg(word, ' ' ORDER BY serial) FROM taken WHERE serial > start);
END $$;

-- # Priority, then id; what is delayed is passed over
INSERT INTO djactor.message (actor_type, actor_key, payload, priority, deliver_at) VALUES ('hosted', 'a', '"low"', -1, NULL), ('hosted', 'a', '"first"', 0, NULL),
	('hosted', 'a', '"delayed"', 9, now() + interval '1 h'), ('hosted', 'a', '"second"', 0, NULL), ('hosted', 'a', '"urgent"', 1, NULL);
SELECT handed(10, 2);
SELECT complete('urgent', 'first');
SELECT put('hosted', 'a', 'third');
SELECT djactor.send('hosted', 'a', '"more urgent"', priority => 5) > 0 AS sent;
SELECT handed(10, 10);
SELECT complete('more urgent', 'second', 'third', 'low');
SELECT djactor.cancel(id) FROM djactor.message;

-- # Mailboxes in the order in which they became ready; one that was served goes to the end, one that was given back untouched keeps its place
SELECT put('hosted', 'a', 'a1', 'a2'), put('hosted', 'b', 'b1', 'b2'), put('hosted', 'c', 'c1');
SELECT handed(1);
SELECT complete('a1');
SELECT handed(1);
SELECT release('b1');
SELECT handed(2);
SELECT complete('b1', 'c1');
SELECT handed(10);
SELECT complete('a2', 'b2');

-- # Given back with a turn done, the rest comes in order
SELECT put('hosted', 'a', 'a1', 'a2', 'a3');
SELECT handed(1, 3);
SELECT complete('a1');
SELECT release('a3'), release('a2');
SELECT handed(1, 3);
SELECT complete('a2', 'a3');
SELECT state, turns FROM actors('hosted') WHERE actor_key = 'a';

-- # Types take turns
SELECT put('hosted', i::text, 'one') FROM generate_series(1, 4) i UNION ALL SELECT put('hosted.two', i::text, 'two') FROM generate_series(1, 4) i;
SELECT count(*) FILTER (WHERE actor_type = 'hosted') AS of_one, count(*) FILTER (WHERE actor_type = 'hosted.two') AS of_two FROM djactor.take(4);
SELECT djactor.host_close();
SELECT djactor.host_open('{hosted,hosted.two,hosted.limited}') > 0 AS opened;
SELECT count(*) FROM claims();
SELECT djactor.host_close();
SELECT djactor.host_open('{hosted,hosted.two,hosted.limited}') > 0 AS opened;
SELECT count(djactor.cancel(id)) AS cancelled FROM djactor.message;

-- # concurrency
SELECT put('hosted.limited', i::text, 'm' || i) FROM generate_series(1, 4) i;
SELECT handed(10);
SELECT handed(10);
SELECT complete('m1');
SELECT handed(10);
SELECT fail('m2', 'JA003');
SELECT release('m3');
SELECT handed(10);
SELECT complete('m3', 'm4');
SELECT djactor.alter_actor_type('hosted.limited', concurrency => NULL);
SELECT put('hosted.limited', i::text, 'm' || i) FROM generate_series(1, 4) i;
SELECT count(*) FROM claims();
SELECT complete('m1', 'm2', 'm3', 'm4');

-- # A host that drains takes nothing more; what it has may end; others take it
SELECT put('hosted', 'x', 'p'), put('hosted', 'y', 'q');
SELECT handed(1);
SELECT djactor.host_drain(id) FROM djactor.host;
SELECT state, claims FROM djactor.host;
SELECT handed(10);
SELECT complete('p');
SELECT djactor.host_close();
SELECT djactor.host_open('{hosted}') > 0 AS opened;
SELECT handed(10);

-- # host_close gives back what it has
SELECT djactor.host_close();
SELECT complete('q');
SELECT djactor.host_open('{hosted}', lease => '5 min') > 0 AS opened;
SELECT handed(10);

-- # A transaction that is at it outlives its host, and then the claim has ended
SELECT put('hosted', 'y', 'r');
BEGIN;
SELECT djactor.host_close();
SELECT complete('q');
ROLLBACK;
SELECT djactor.host_open('{hosted}') > 0 AS opened;
SELECT handed(10, 10);
BEGIN;
SELECT complete('q');
SELECT djactor.host_close();
SELECT complete('r');
COMMIT;
SELECT state, turns FROM actors('hosted') WHERE actor_key = 'y';

-- # heartbeat renews the lease, take does, ending turns does
SELECT djactor.host_open('{hosted}', lease => '10 min') AS host \gset
CREATE TEMP TABLE lease AS SELECT lease_until FROM djactor.host;
SELECT djactor.heartbeat(:host);
SELECT h.lease_until > l.lease_until AS renewed FROM djactor.host h, lease l;
UPDATE lease SET lease_until = h.lease_until FROM djactor.host h;
SELECT put('hosted', 'z', 'p');
SELECT handed(1);
SELECT h.lease_until > l.lease_until AS renewed FROM djactor.host h, lease l;
UPDATE lease SET lease_until = h.lease_until FROM djactor.host h;
SELECT complete('p');
SELECT h.lease_until > l.lease_until AS renewed FROM djactor.host h, lease l;
SELECT djactor.heartbeat(:host + 1);

-- # Names are cut, not refused
SELECT djactor.host_close();
SELECT djactor.host_open('{hosted}', repeat('n', 100), version => repeat('v', 100)) > 0 AS opened;
SELECT length(name), length(version) FROM djactor.host;

SELECT djactor.host_close();
SELECT count(djactor.drop_actor_type(name, true)) AS dropped FROM djactor.actor_type WHERE name LIKE 'hosted%';
DELETE FROM djactor.dead_letter WHERE actor_type LIKE 'hosted%';
DROP TABLE lease;
DROP FUNCTION handed;
\i :tests/sql/include/hosted_end.sql
