--
-- drop_actor_type(): refuses while actors or mail exist, discards them when told to.
-- Section 2 (define).
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql

-- # A type without actors and mail goes at once
SELECT djactor.define_actor_type('drop.empty', 'collect');
SELECT djactor.drop_actor_type('drop.empty');
SELECT count(*) FROM djactor.actor_type WHERE name = 'drop.empty';

-- # An unknown type
CALL fails($$SELECT djactor.drop_actor_type('drop.empty')$$);

-- # With actors it is refused
SELECT djactor.define_actor_type('drop.used', 'collect');
SELECT djactor.define_actor_type('drop.other', 'collect');
SELECT djactor.send('drop.used', 'k', '1') > 0 AS sent, djactor.send('drop.other', 'k', '1') > 0 AS sent;
CALL idle('drop.used');
CALL idle('drop.other');
CALL fails($$SELECT djactor.drop_actor_type('drop.used')$$);

-- # With mail too, also with delayed mail alone
SELECT djactor.define_actor_type('drop.mail', 'collect');
SELECT djactor.send('drop.mail', 'k', deliver_at => now() + '1 day') > 0 AS sent;
CALL fails($$SELECT djactor.drop_actor_type('drop.mail')$$);

-- # A rolled back drop changes nothing
BEGIN;
SELECT djactor.drop_actor_type('drop.used', true);
ROLLBACK;
SELECT djactor.send('drop.used', 'k', '2') > 0 AS sent;
CALL idle('drop.used');
SELECT actor_key, state FROM djactor.actor WHERE actor_type = 'drop.used';

-- # discard deletes its actors and mail, and those of no other type
SELECT djactor.pause('drop.used');
SELECT djactor.send('drop.used', 'k', '3') > 0 AS sent;
SELECT djactor.drop_actor_type('drop.used', discard => true), djactor.drop_actor_type('drop.mail', true);
SELECT (SELECT count(*) FROM djactor.message WHERE actor_type IN ('drop.used', 'drop.mail')) AS messages,
	(SELECT count(*) FROM djactor.actor WHERE actor_type = 'drop.used') AS actors,
	(SELECT count(*) FROM djactor.actor_identity WHERE actor_type = 'drop.used') AS identities,
	(SELECT count(*) FROM djactor.actor WHERE actor_type = 'drop.other') AS other_actors;
CALL fails($$SELECT djactor.send('drop.used', 'k')$$);

-- # Defined anew it starts with nothing, and not paused
SELECT djactor.define_actor_type('drop.used', 'collect');
SELECT djactor.send('drop.used', 'k', '4') > 0 AS sent;
CALL idle('drop.used');
SELECT state, turns FROM djactor.actor WHERE actor_type = 'drop.used';

-- # Dropped and defined in one transaction
BEGIN;
SELECT djactor.drop_actor_type('drop.used', true);
SELECT djactor.define_actor_type('drop.used', 'collect');
SELECT djactor.send('drop.used', 'k', '5') > 0 AS sent;
COMMIT;
CALL idle('drop.used');
SELECT state, turns FROM djactor.actor WHERE actor_type = 'drop.used';

SELECT djactor.drop_actor_type('drop.used', true), djactor.drop_actor_type('drop.other', true);

-- # What an earlier type of the name has left, restored without it say, is not for anybody who takes the name
CREATE ROLE regress_dja_taker LOGIN;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA djactor TO regress_dja_taker;
-- left_over(what, row): whether it may be taken, where one row is there
CREATE PROCEDURE left_over(what text, a_row text) LANGUAGE plpgsql AS $$
BEGIN
	SET LOCAL session_replication_role = replica;
	EXECUTE format('INSERT INTO djactor.%s', a_row);
	SET LOCAL session_replication_role = origin;
	SET LOCAL ROLE regress_dja_taker;
	RAISE INFO '%', what;
	CALL fails($q$SELECT djactor.define_actor_type('drop.left', 'collect')$q$);
	RESET ROLE;
	PERFORM djactor.define_actor_type('drop.left', 'collect');
	PERFORM djactor.drop_actor_type('drop.left', true);
	SET LOCAL ROLE regress_dja_taker;
	PERFORM djactor.define_actor_type('drop.left', 'collect');
	RESET ROLE;
	ROLLBACK;
END $$;
CALL left_over('an actor', $$actor (id, actor_type, actor_key, state, created_at, updated_at) VALUES (1, 'drop.left', 'k', '{}', now(), now())$$);
CALL left_over('its name', $$actor_identity (actor_type, actor_key) VALUES ('drop.left', 'k')$$);
CALL left_over('a timer', $$timer (actor_type, actor_key, name, due_at, payload, message_id) VALUES ('drop.left', 'k', 't', now(), '1', 1)$$);
CALL left_over('who watches', $$watch VALUES ('drop.left', 'k', 'other', 'k')$$);
CALL left_over('who is watched', $$watch VALUES ('other', 'k', 'drop.left', 'k')$$);
CALL left_over('a key', $$idempotency VALUES ('drop.left', 'k', 'i', 1, false, NULL, NULL, now())$$);
CALL left_over('mail that is held', $$message (actor_type, actor_key) VALUES ('drop.left', 'k')$$);
ALTER TABLE djactor.message DISABLE TRIGGER arrived;
CALL left_over('mail', $$message (actor_type, actor_key) VALUES ('drop.left', 'k')$$);
CALL left_over('mail that is delayed', $$message (actor_type, actor_key, deliver_at) VALUES ('drop.left', 'k', now())$$);
ALTER TABLE djactor.message ENABLE REPLICA TRIGGER arrived;
DROP PROCEDURE left_over;
DROP OWNED BY regress_dja_taker;
DROP ROLE regress_dja_taker;
