--
-- Sending: what is refused, with which SQLSTATE and hint. Nothing refused is stored.
-- Section 2 (allowed writes, send), section 3 point 6.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
SELECT djactor.define_actor_type('strict', 'collect');
SELECT djactor.pause('strict');

-- # Unknown type
CALL fails($$INSERT INTO djactor.message (actor_type, actor_key) VALUES ('no_such_type', 'k')$$);
CALL fails($$SELECT djactor.send('no_such_type', 'k')$$);
CALL fails($$INSERT INTO djactor.message (actor_type, actor_key) VALUES ('strict', 'k'), ('Strict', 'k')$$);
CALL fails($$INSERT INTO djactor.message (actor_type, actor_key) VALUES ('', 'k')$$);

-- # Keys have 1 to 512 bytes
CALL fails($$SELECT djactor.send('strict', '')$$);
CALL fails($$INSERT INTO djactor.message (actor_type, actor_key) VALUES ('strict', '')$$);
CALL fails($$SELECT djactor.send('strict', repeat('k', 513))$$);
CALL fails($$SELECT djactor.send('strict', repeat('é', 257))$$);
CALL fails($$SELECT djactor.send('strict', convert_from('\x610062', 'UTF8'))$$);

-- # NULL is no type, no key, no payload
CALL fails($$SELECT djactor.send(NULL, 'k') $$);
CALL fails($$SELECT djactor.send('strict', NULL)$$);
CALL fails($$SELECT djactor.send('strict', 'k', NULL)$$);

-- # Priority
CALL fails($$SELECT djactor.send('strict', 'k', priority => 32768)$$);
CALL fails($$SELECT djactor.send('strict', 'k', priority => -32769)$$);

-- # The id is drawn, never given: a stale ORM object cannot be saved back
CALL fails($$INSERT INTO djactor.message (id, actor_type, actor_key) VALUES (1, 'strict', 'k')$$);

-- # One bad row refuses its whole statement
COPY djactor.message (actor_type, actor_key) FROM stdin;
strict	good
no_such_type	bad
\.

SELECT count(*) AS stored FROM djactor.message WHERE actor_type IN ('strict', 'Strict', 'no_such_type', '');

-- # A sent message cannot be changed, deleted, truncated
SELECT djactor.send('strict', 'k', '1') > 0 AS sent;
CALL fails($$UPDATE djactor.message SET payload = '2'$$);
CALL fails($$UPDATE djactor.message SET priority = 1 WHERE false$$);
CALL fails($$DELETE FROM djactor.message$$);
CALL fails($$TRUNCATE djactor.message$$);
CALL fails($$INSERT INTO djactor.message (actor_type, actor_key) VALUES ('strict', 'k') ON CONFLICT (id) DO UPDATE SET payload = '2'$$);
CALL fails($$MERGE INTO djactor.message USING (SELECT) x ON true WHEN MATCHED THEN DELETE$$);

-- # Nor can the other tables, except for what is meant to be
CALL fails($$UPDATE djactor.actor_type SET paused = false$$);
CALL fails($$DELETE FROM djactor.actor_type$$);
CALL fails($$TRUNCATE djactor.actor_type$$);
CALL fails($$UPDATE djactor.actor SET status = 'active'$$);
CALL fails($$UPDATE djactor.actor SET state = '1', turns = 0$$);
CALL fails($$DELETE FROM djactor.actor$$);
CALL fails($$TRUNCATE djactor.actor$$);
CALL fails($$UPDATE djactor.actor_identity SET actor_key = 'x'$$);
CALL fails($$DELETE FROM djactor.actor_identity$$);
CALL fails($$TRUNCATE djactor.actor_identity$$);
CALL fails($$UPDATE djactor.dead_letter SET reason = 'x'$$);
CALL fails($$TRUNCATE djactor.dead_letter$$);

-- # The message is still there, as it was sent
SELECT djactor.resume('strict');
CALL idle('strict');
SELECT actor_key, state FROM djactor.actor WHERE actor_type = 'strict';

SELECT djactor.drop_actor_type('strict', true);
