--
-- Sending: every way to insert a row sends a message; a rollback unsends it.
-- Section 2 (send), section 3 points 1, 4, 5 and 6.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
SELECT djactor.define_actor_type('send', 'collect');

-- # Plain INSERT; an omitted payload is {}
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('send', 'insert', '{"n": 1}');
INSERT INTO djactor.message (actor_type, actor_key) VALUES ('send', 'insert');

-- # Several rows, to one actor and to many
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES
	('send', 'rows', '1'), ('send', 'rows', '2'), ('send', 'rows too', '3');

-- # INSERT ... SELECT
INSERT INTO djactor.message (actor_type, actor_key, payload)
SELECT 'send', 'select', to_jsonb(i) FROM generate_series(1, 5) i;

-- # RETURNING
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('send', 'returning', '1')
RETURNING id > 0 AS id, actor_key, payload, headers, priority, deliver_at, expires_at, attempts, sent_at = now() AS sent_now;

-- # COPY
COPY djactor.message (actor_type, actor_key, payload) FROM stdin;
send	copy	1
send	copy	{"text": "two"}
\.

-- # In a CTE, next to ordinary data
CREATE TABLE orders (id int PRIMARY KEY);
WITH ordered AS (INSERT INTO orders VALUES (1), (2) RETURNING id)
INSERT INTO djactor.message (actor_type, actor_key, payload)
SELECT 'send', 'cte', to_jsonb(id) FROM ordered ORDER BY id;
WITH sent AS (INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('send', 'in cte', '1') RETURNING id)
SELECT count(*) FROM sent;

-- # ON CONFLICT DO NOTHING
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('send', 'on conflict', '1') ON CONFLICT DO NOTHING;

-- # MERGE
MERGE INTO djactor.message m USING orders o ON false
WHEN NOT MATCHED THEN INSERT (actor_type, actor_key, payload) VALUES ('send', 'merge', to_jsonb(o.id));

-- # A prepared statement
PREPARE send_it (text, jsonb) AS
	INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('send', $1, $2);
EXECUTE send_it('prepared', '1');
EXECUTE send_it('prepared', '2');
DEALLOCATE send_it;

-- # A trigger of the user's own table
CREATE FUNCTION order_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('send', 'trigger', to_jsonb(NEW));
	RETURN NULL;
END $$;
CREATE TRIGGER order_changed AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION order_changed();
INSERT INTO orders VALUES (3);

-- # send() returns the id, and takes its options by name
SELECT djactor.send('send', 'function') > 0 AS sent;
SELECT djactor.send('send', 'function', '2') > 0 AS sent;
SELECT djactor.send('send', 'function', payload => '3', priority => 0, deliver_at => NULL,
	expires_at => now() + '1 day', headers => '{"tenant": 5}') > 0 AS sent;
SELECT djactor.send('send', 'ids') < djactor.send('send', 'ids') AS ids_rise;

-- # A rollback unsends, also one to a savepoint
BEGIN;
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('send', 'rolled back', '1');
ROLLBACK;
BEGIN;
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('send', 'savepoint', '"before"');
SAVEPOINT s;
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('send', 'savepoint', '"undone"');
ROLLBACK TO s;
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('send', 'savepoint', '"after"');
COMMIT;

-- # Nothing to send
INSERT INTO djactor.message (actor_type, actor_key) SELECT 'send', 'nobody' WHERE false;

-- # All of them are handled once, in order
CALL idle('send');
SELECT actor_key, state, turns FROM djactor.actor WHERE actor_type = 'send' ORDER BY actor_key;
SELECT count(*) AS waiting FROM djactor.message WHERE actor_type = 'send';
SELECT count(*) AS dead FROM djactor.dead_letter WHERE actor_type = 'send';

-- # More mailboxes in one transaction than a transaction can name one by one
INSERT INTO djactor.message (actor_type, actor_key, payload)
SELECT 'send', 'many ' || i % 3000, to_jsonb(i) FROM generate_series(1, 9000) i;
CALL idle('send');
SELECT count(*) AS actors, sum(turns) AS turns, count(*) FILTER (WHERE turns = 3) AS with_three
FROM djactor.actor WHERE actor_type = 'send' AND actor_key LIKE 'many %';

SELECT djactor.drop_actor_type('send', true);
DROP TABLE orders;
DROP FUNCTION order_changed;
