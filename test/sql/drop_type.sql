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
