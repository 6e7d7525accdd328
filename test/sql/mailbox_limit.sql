--
-- mailbox_limit: a full mailbox refuses, or dead-letters; it never blocks. The limit is soft: what stands here is
-- what one sender alone can rely on.
-- Section 2 (on_full), section 3 point 20.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
SELECT djactor.define_actor_type('limit', 'collect', mailbox_limit => 3);
SELECT djactor.pause('limit');

-- # raise: SQLSTATE 53400 in the sender
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('limit', 'l', '1'), ('limit', 'l', '2');
SELECT djactor.send('limit', 'l', '3') > 0 AS sent;
CALL fails($$SELECT djactor.send('limit', 'l', '4')$$);
CALL fails($$INSERT INTO djactor.message (actor_type, actor_key) VALUES ('limit', 'l')$$);

-- # Programs know it by the constraint's name: the stash's limit has the same SQLSTATE
DO $$
DECLARE
	name text;
BEGIN
	PERFORM djactor.send('limit', 'l', '4');
EXCEPTION WHEN configuration_limit_exceeded THEN
	GET STACKED DIAGNOSTICS name = CONSTRAINT_NAME;
	RAISE INFO '%', name;
END $$;

-- # It holds for each mailbox alone, and within one statement
SELECT djactor.send('limit', 'other', '1') > 0 AS sent;
CALL fails($$INSERT INTO djactor.message (actor_type, actor_key) SELECT 'limit', 'm' FROM generate_series(1, 4)$$);
SELECT actor_key, depth FROM djactor.mailbox WHERE actor_type = 'limit' ORDER BY 1;

-- # What is handled makes room
SELECT djactor.resume('limit');
CALL idle('limit');
SELECT djactor.pause('limit');
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('limit', 'l', '5'), ('limit', 'l', '6'), ('limit', 'l', '7');
CALL fails($$SELECT djactor.send('limit', 'l', '8')$$);

-- # dead_letter: what does not fit goes there
SELECT djactor.define_actor_type('limit', 'collect', mailbox_limit => 3, on_full => 'dead_letter');
INSERT INTO djactor.message (actor_type, actor_key, payload, headers) VALUES ('limit', 'l', '8', '{"h": 1}');
INSERT INTO djactor.message (actor_type, actor_key, payload) SELECT 'limit', 'n', to_jsonb(i) FROM generate_series(1, 5) i;
SELECT actor_key, payload, headers, attempts, reason, sqlstate, error FROM djactor.dead_letter WHERE actor_type = 'limit' ORDER BY id;
SELECT actor_key, depth FROM djactor.mailbox WHERE actor_type = 'limit' ORDER BY 1;

-- # ... and is counted if a worker's turn has sent it, as its other dead letters are
SELECT coalesce(sum(dead), 0) AS dead FROM djactor.stat WHERE actor_type = 'limit';
CREATE FUNCTION send_on(state jsonb, message jsonb) RETURNS void LANGUAGE sql AS $$ SELECT djactor.send('limit', 'n', message) $$;
SELECT djactor.define_actor_type('limit.sender', 'send_on');
SELECT djactor.send('limit.sender', 's', '"full"') > 0 AS sent;
CALL wait_until($$(SELECT dead = 1 FROM djactor.stat WHERE actor_type = 'limit')$$);
SELECT actor_key, payload, reason FROM djactor.dead_letter WHERE payload = '"full"';
SELECT djactor.drop_actor_type('limit.sender', true);
DROP FUNCTION send_on;

-- # Without a limit again
SELECT djactor.define_actor_type('limit', 'collect');
SELECT djactor.send('limit', 'l', '9') > 0 AS sent;
SELECT djactor.resume('limit');
CALL idle('limit');
SELECT actor_key, state FROM djactor.actor WHERE actor_type = 'limit' ORDER BY 1;

DELETE FROM djactor.dead_letter WHERE actor_type = 'limit';
SELECT djactor.drop_actor_type('limit', true);
