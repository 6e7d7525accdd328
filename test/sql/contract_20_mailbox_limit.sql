--
-- Contract 20: a mailbox limit is soft. Exceeding it raises 53400 in the sender, or dead-letters the message; it never blocks.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql

SELECT djactor.define_actor_type('c20', 'collect', mailbox_limit => 10), djactor.define_actor_type('c20.dead', 'collect', mailbox_limit => 10, on_full => 'dead_letter');
SELECT djactor.pause('c20'), djactor.pause('c20.dead');

-- # In the sender: its statement fails, and what it had sent before stands
INSERT INTO djactor.message (actor_type, actor_key) SELECT 'c20', 'a' FROM generate_series(1, 10);
CALL fails($$INSERT INTO djactor.message (actor_type, actor_key) VALUES ('c20', 'a')$$);
CALL fails($$INSERT INTO djactor.message (actor_type, actor_key) SELECT 'c20', 'other' FROM generate_series(1, 50)$$);
SELECT actor_key, depth FROM djactor.mailbox WHERE actor_type = 'c20' ORDER BY 1;

-- # Each actor has a mailbox of its own
INSERT INTO djactor.message (actor_type, actor_key) SELECT 'c20', 'b' FROM generate_series(1, 10);

-- # dead_letter: the sender goes on, and who asked is told
DELETE FROM djactor.reply;
INSERT INTO djactor.message (actor_type, actor_key, payload, wants_reply) SELECT 'c20.dead', 'a', to_jsonb(i), true FROM generate_series(1, 12) i;
SELECT count(*) AS waiting FROM djactor.message WHERE actor_type = 'c20.dead';
SELECT payload, reason FROM djactor.dead_letter WHERE actor_type = 'c20.dead' ORDER BY id;
SELECT error ->> 'reason' AS answered FROM djactor.reply;

-- # Once there is room, sending goes on
SELECT djactor.resume('c20');
CALL idle('c20');
INSERT INTO djactor.message (actor_type, actor_key) SELECT 'c20', 'a' FROM generate_series(1, 10);
CALL idle('c20');
SELECT actor_key, turns FROM djactor.actor WHERE actor_type = 'c20' ORDER BY 1;

SELECT djactor.drop_actor_type('c20', true), djactor.drop_actor_type('c20.dead', true);
DELETE FROM djactor.dead_letter WHERE actor_type LIKE 'c20%';
DELETE FROM djactor.reply;
