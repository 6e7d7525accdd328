--
-- Hosted types are defined and changed like all others: only their handler is not the database's business.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
CREATE VIEW shown AS SELECT name, handler, hosted, stateless FROM djactor.actor_type WHERE name LIKE 'hosted.%' ORDER BY name;

-- # The handler is whatever the hosts make of it, or nothing
SELECT djactor.define_actor_type('hosted.a', NULL, hosted => true), djactor.define_actor_type('hosted.b', 'shop.actors.Order', hosted => true),
	djactor.define_actor_type('hosted.c', NULL, hosted => true, stateless => true);
SELECT * FROM shown;

-- # Without hosted it has to be a function, and there has to be one
CALL fails($$SELECT djactor.define_actor_type('hosted.d', NULL)$$);
CALL refused($$SELECT djactor.define_actor_type('hosted.d', 'shop.actors.Order')$$);
CALL fails($$SELECT djactor.alter_actor_type('hosted.a', hosted => false)$$);
CALL refused($$SELECT djactor.alter_actor_type('hosted.b', hosted => false)$$);

-- # States are upgraded by the hosts
CALL fails($$SELECT djactor.define_actor_type('hosted.d', NULL, hosted => true, upgrade_handler => 'collect')$$);
CALL fails($$SELECT djactor.alter_actor_type('hosted.a', upgrade_handler => 'collect')$$);

-- # An option that is not there is an error, as for all types
CALL fails($$SELECT djactor.define_actor_type('hosted.d', NULL, hosted => NULL)$$);
CALL fails($$SELECT djactor.define_actor_type('hosted.d', NULL, hosted => true, stateless => NULL)$$);

-- # alter_actor_type moves a type to hosts and back
SELECT djactor.define_actor_type('hosted.d', 'collect', backoff => '7 s');
SELECT djactor.alter_actor_type('hosted.d', hosted => true, handler => 'shop.actors.Moved');
SELECT * FROM shown WHERE name = 'hosted.d';
SELECT djactor.alter_actor_type('hosted.d', max_attempts => 3);
SELECT * FROM shown WHERE name = 'hosted.d';
SELECT djactor.alter_actor_type('hosted.d', hosted => false, handler => 'collect');
SELECT name, handler, hosted, max_attempts, backoff FROM djactor.actor_type WHERE name = 'hosted.d';

-- # To define it again without the word brings it back into the database, since definitions say all
SELECT djactor.define_actor_type('hosted.b', 'collect');
SELECT * FROM shown WHERE name = 'hosted.b';

-- # Sending to it needs no host
SELECT djactor.send('hosted.a', 'k', '1') > 0 AS sent;
SELECT count(*) AS waiting FROM djactor.message WHERE actor_type = 'hosted.a';

DROP VIEW shown;
SELECT count(djactor.drop_actor_type(name, true)) AS dropped FROM djactor.actor_type WHERE name LIKE 'hosted.%';
