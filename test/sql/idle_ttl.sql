--
-- Actors without a turn for their type's idle_ttl stop, unless something is still to come for them.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
\i :tests/sql/include/obey.sql
SELECT djactor.define_actor_type('idle', 'obey', max_attempts => 1, breaker_failures => NULL),
	djactor.define_actor_type('watcher', 'obey'), djactor.define_actor_type('other', 'obey');
CREATE FUNCTION living(name text) RETURNS text LANGUAGE sql AS
	$$ SELECT string_agg(actor_key, ' ' ORDER BY actor_key) FROM djactor.actor WHERE actor_type = name $$;

-- # Wrong values
CALL fails($$SELECT djactor.alter_actor_type('idle', idle_ttl => '0')$$);
CALL fails($$SELECT djactor.alter_actor_type('idle', idle_ttl => '-1 min')$$);
CALL fails($$SELECT djactor.alter_actor_type('idle', idle_ttl => '20000 years')$$);
CALL fails($$SELECT djactor.alter_actor_type('idle', idle_ttl => '1 min', stateless => true)$$);
CALL fails($$SELECT djactor.define_actor_type('new', 'obey', idle_ttl => '1 min', stateless => true)$$);

-- # Actors of any age, each with something else to come, and two without
SELECT tell('idle', 'plain', '1'), tell('idle', 'watched', '1'),
	tell('idle', 'timer', '1', $$SELECT djactor.set_timer('later', '1 h')$$),
	tell('idle', 'paused timer', '1', $$SELECT djactor.set_timer('later', '1 h')$$),
	tell('idle', 'stash', '1', $$SELECT djactor.stash()$$), tell('idle', 'stash', '2'),
	tell('idle', 'paused', '1'), tell('idle', 'delayed', '1'),
	djactor.send('idle', 'deferred', '{"n": "1", "do": ["SELECT djactor.defer_reply()"]}', wants_reply => true) > 0 AS asked,
	tell('other', 'plain', '1');
CALL idle('idle');
SELECT djactor.pause('idle', 'paused timer', 'later'), djactor.pause('idle', 'paused');
SELECT djactor.send('idle', 'delayed', deliver_at => now() + interval '1 h') > 0 AS sent;
SELECT tell('watcher', 'w', 'watches', $$SELECT djactor.watch('idle', 'watched')$$);
CALL idle('watcher');

-- # A long idle_ttl stops none; a shorter one stops those that are older, and only those with nothing to come
SELECT djactor.alter_actor_type('idle', idle_ttl => '1 h');
SELECT pg_sleep(0.3), living('idle') AS living;
SELECT djactor.alter_actor_type('idle', idle_ttl => '300 ms');
CALL wait_until($$living('idle') NOT LIKE '%plain%' AND living('idle') NOT LIKE '%watched%'$$);
SELECT living('idle') AS living;
SELECT count(*) AS identities FROM djactor.actor_identity WHERE actor_type = 'idle';
SELECT living('other') AS others;

-- # The watcher was told, once
CALL idle('watcher');
SELECT count(*) AS watches FROM djactor.watch;
SELECT words FROM heard() WHERE actor_key = 'w';

-- # What was keeping them goes, and they with it
SELECT djactor.unschedule('idle', 'paused timer', 'later'), djactor.unschedule('idle', 'timer', 'later');
SELECT djactor.resume('idle', 'paused');
SELECT actor_key, djactor.cancel(id) FROM djactor.message WHERE actor_type = 'idle' AND actor_key IN ('delayed', 'deferred') ORDER BY 1;
CALL wait_until($$living('idle') = 'stash'$$);

-- # A new actor, of a type that is quiet otherwise, stops when its time has come; a turn makes it live longer
SELECT djactor.alter_actor_type('idle', idle_ttl => '3 s');
SELECT tell('idle', 'new', '1');
CALL idle('idle');
SELECT pg_sleep(2);
SELECT tell('idle', 'new', '2');
CALL idle('idle');
SELECT pg_sleep(1.5), living('idle') AS living;
SELECT turns FROM djactor.actor WHERE actor_type = 'idle' AND actor_key = 'new';
CALL wait_until($$living('idle') = 'stash'$$);

-- # A paused type stops none
SELECT djactor.alter_actor_type('idle', idle_ttl => NULL);
SELECT tell('idle', 'again', '1');
CALL idle('idle');
SELECT djactor.pause('idle');
SELECT djactor.alter_actor_type('idle', idle_ttl => '100 ms');
SELECT pg_sleep(1.5), living('idle') AS living;
SELECT djactor.resume('idle');
CALL wait_until($$living('idle') = 'stash'$$);

-- # Actors of a hosted type stop likewise, but not while a host has their mail
SELECT djactor.define_actor_type('idle.hosted', NULL, hosted => true, idle_ttl => '1 s');
SELECT djactor.host_open('{idle.hosted}') > 0 AS opened;
SELECT djactor.send('idle.hosted', 'h', n::text::jsonb) > 0 AS sent FROM generate_series(1, 2) n;
SELECT token, id AS message FROM djactor.take(1) \gset
SELECT djactor.complete(ARRAY[:token], ARRAY[:message], ARRAY['1'::jsonb]);
SELECT token, id AS message, state FROM djactor.take(1) \gset
SELECT pg_sleep(2.5), living('idle.hosted') AS living;
SELECT djactor.complete(ARRAY[:token], ARRAY[:message], ARRAY['2'::jsonb]), :'state' AS state;
SELECT living('idle.hosted') AS living;
CALL wait_until($$living('idle.hosted') IS NULL$$);
SELECT djactor.host_close();

-- # More actors than are read, or stopped, in a transaction
SELECT djactor.define_actor_type('idle.many', 'obey', initial_state => '[]');
SELECT count(tell('idle.many', 'k' || n, '1')) FROM generate_series(1, 1200) n;
CALL idle('idle.many');
SELECT count(*) AS actors FROM djactor.actor WHERE actor_type = 'idle.many';
SELECT djactor.alter_actor_type('idle.many', idle_ttl => '100 ms');
CALL wait_until($$living('idle.many') IS NULL$$);
SELECT count(*) AS identities FROM djactor.actor_identity WHERE actor_type = 'idle.many';

-- # Leave nothing behind
SELECT djactor.drop_actor_type(name, discard => true) FROM unnest('{idle,watcher,other,idle.hosted,idle.many}'::text[]) name;
DELETE FROM djactor.reply;
DROP FUNCTION living, obey, tell, heard;
DROP TABLE told;
