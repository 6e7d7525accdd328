--
-- Watching: who is told when an actor stops, fails for good, or was never there.
-- Section 2 (watch, unwatch), section 3 points 13 and 23. The race of watch and stop: test/specs/watch_and_stop.spec.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
\i :tests/sql/include/obey.sql
SELECT djactor.define_actor_type('watch', 'obey', max_attempts => 1, breaker_failures => NULL);
SELECT djactor.define_actor_type('watch.suspend', 'obey', max_attempts => 1, on_exhausted => 'suspend', breaker_failures => NULL);

-- # Each watcher is told once, by a message of kind down; watching twice is watching once; then the watch is over
SELECT tell('watch', 't', '1');
CALL idle('watch');
SELECT tell('watch', key, 'watch', $$SELECT djactor.watch('watch', 't')$$, $$SELECT djactor.watch('watch', 't')$$) FROM unnest('{v,w}'::text[]) key;
CALL idle('watch');
SELECT * FROM djactor.watch ORDER BY watcher_key;
SELECT tell('watch', 't', 'stop', $$SELECT djactor.stop()$$);
CALL idle('watch');
SELECT * FROM heard();
SELECT tell('watch', 't', '1', $$SELECT djactor.stop()$$);
CALL idle('watch');
SELECT * FROM heard();
SELECT count(*) AS watches FROM djactor.watch;

-- # The message tells who and why, and comes from that actor
CREATE FUNCTION show(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	m djactor.message := djactor.message();
BEGIN
	IF m.kind = 'user' THEN
		PERFORM djactor.watch('watch', message #>> '{}');
		RETURN state;
	END IF;
	RETURN jsonb_build_object('kind', m.kind, 'payload', m.payload, 'meta', m.meta, 'sender', m.sender_type || ' ' || m.sender_key);
END $$;
SELECT djactor.define_actor_type('watch.show', 'show');
SELECT tell('watch', 't', '1');
CALL idle('watch');
SELECT djactor.send('watch.show', 's', '"t"') > 0 AS sent;
CALL idle('watch.show');
SELECT djactor.stop_actor('watch', 't');
CALL idle('watch.show');
SELECT state FROM djactor.actor WHERE actor_type = 'watch.show';

-- # Who watches an actor that is not there is told at once, each time
SELECT tell('watch', 'w', 'watch', $$SELECT djactor.watch('watch', 'absent')$$), tell('watch', 'w', 'watch', $$SELECT djactor.watch('watch', 'absent')$$);
CALL idle('watch');
SELECT * FROM heard();
SELECT count(*) AS watches FROM djactor.watch;

-- # Watching an actor is no sending: it is not created; one that stands in the same batch is there
BEGIN;
SELECT tell('watch', 'mate', '1'), tell('watch', 'w', 'watch', $$SELECT djactor.watch('watch', 'mate')$$);
SELECT djactor.pause('watch');
COMMIT;
SELECT djactor.resume('watch');
CALL idle('watch');
SELECT tell('watch', 'mate', 'stop', $$SELECT djactor.stop()$$);
CALL idle('watch');
SELECT count(*) AS told FROM told WHERE word LIKE 'down mate%';
SELECT count(*) AS actors FROM djactor.actor WHERE actor_type = 'watch' AND actor_key IN ('mate', 'absent');
SELECT count(*) > 0 AS heard FROM heard();

-- # unwatch() before the stop: nothing is told; it also takes back what the same turn has watched, and harms nobody else
SELECT tell('watch', 't', '1');
CALL idle('watch');
SELECT tell('watch', 'v', 'watch', $$SELECT djactor.watch('watch', 't')$$), tell('watch', 'w', 'watch', $$SELECT djactor.watch('watch', 't')$$), tell('watch', 'w', 'unwatch', $$SELECT djactor.unwatch('watch', 't'), djactor.unwatch('watch', 't')$$),
	tell('watch', 'u', 'both', $$SELECT djactor.watch('watch', 't')$$, $$SELECT djactor.unwatch('watch', 't')$$);
CALL idle('watch');
SELECT djactor.stop_actor('watch', 't');
CALL idle('watch');
SELECT * FROM heard();

-- # Rolled back: a watch, an unwatch
SELECT tell('watch', 't', '1');
CALL idle('watch');
SELECT tell('watch', 'v', 'watch', $$SELECT djactor.watch('watch', 't')$$, $q$DO $$BEGIN PERFORM djactor.unwatch('watch', 't'); RAISE division_by_zero; EXCEPTION WHEN OTHERS THEN NULL; END$$$q$),
	tell('watch', 'w', 'rolled back', $q$DO $$BEGIN PERFORM djactor.watch('watch', 't'); RAISE division_by_zero; EXCEPTION WHEN OTHERS THEN NULL; END$$$q$), tell('watch', 'u', 'fails', $$SELECT djactor.watch('watch', 't')$$, 'SELECT 1/0');
CALL idle('watch');
SELECT watcher_key FROM djactor.watch;
BEGIN;
SELECT djactor.stop_actor('watch', 't');
ROLLBACK;
SELECT watcher_key FROM djactor.watch;
SELECT count(*) > 0 AS heard FROM heard();

-- # Told each time that a message of the actor is given up or it is suspended, and the watch goes on
SELECT tell('watch', 't', 'fails', 'SELECT 1/0'), tell('watch', 't', 'rejects', $$SELECT djactor.reject('no')$$);
CALL idle('watch');
SELECT * FROM heard();
SELECT tell('watch.suspend', 't', '1');
CALL idle('watch.suspend');
SELECT tell('watch', 'v', 'watch', $$SELECT djactor.watch('watch.suspend', 't')$$);
CALL idle('watch');
SELECT tell('watch.suspend', 't', 'fails', 'SELECT 1/0');
CALL idle('watch.suspend');
CALL idle('watch');
SELECT djactor.stop_actor('watch.suspend', 't');
CALL idle('watch');
SELECT * FROM heard() WHERE actor_key = 'v';

-- # drain() brings such mail, too, though nothing else was handled
BEGIN;
SELECT tell('watch', 't', 'fails', 'SELECT 1/0');
SELECT djactor.drain(on_error => 'retry');
SELECT * FROM heard();
ROLLBACK;

-- # A watcher that stops is not told any more, and is not brought back to life
SELECT tell('watch', 'v', 'stop', $$SELECT djactor.stop()$$);
CALL idle('watch');
SELECT count(*) AS watches FROM djactor.watch;
SELECT count(*) > 0 AS heard FROM heard();
SELECT djactor.stop_actor('watch', 't');
CALL idle('watch');
SELECT count(*) AS actors FROM djactor.actor WHERE actor_type = 'watch' AND actor_key IN ('v', 't');

-- # Two that watch each other and stop in the same batch; one that watches itself
BEGIN;
SELECT tell('watch', 'x', '1'), tell('watch', 'y', '1');
COMMIT;
CALL idle('watch');
SELECT tell('watch', 'x', 'watch', $$SELECT djactor.watch('watch', 'y')$$), tell('watch', 'y', 'watch', $$SELECT djactor.watch('watch', 'x')$$);
CALL idle('watch');
BEGIN;
SELECT tell('watch', 'x', 'stop', $$SELECT djactor.stop()$$), tell('watch', 'y', 'stop', $$SELECT djactor.stop()$$);
COMMIT;
CALL idle('watch');
SELECT count(*) AS watches FROM djactor.watch;
SELECT count(*) > 0 AS heard FROM heard();
SELECT tell('watch', 'self', '1'), tell('watch', 'self', 'watch and stop', $$SELECT djactor.watch('watch', 'self')$$, $$SELECT djactor.stop()$$);
CALL idle('watch');
SELECT * FROM heard();
SELECT count(*) AS actors FROM djactor.actor WHERE actor_key = 'self';

-- # Dropping a type ends its watches, those within the type too
SELECT tell('watch', 't', '1');
CALL idle('watch');
SELECT tell('watch', 'w', 'watch', $$SELECT djactor.watch('watch', 't')$$);
CALL idle('watch');

-- # ... and who watches one that is dropped with its type, once
SELECT * FROM heard();
SELECT djactor.define_actor_type('watch.gone', 'obey');
SELECT tell('watch.gone', 'g', '1');
CALL idle('watch.gone');
SELECT tell('watch', 'v', 'watch', $$SELECT djactor.watch('watch.gone', 'g')$$);
CALL idle('watch');
SELECT djactor.drop_actor_type('watch.gone', discard => true);
CALL idle('watch');
SELECT actor_key, word FROM told WHERE word LIKE 'down%';
SELECT count(*) AS watches FROM djactor.watch WHERE actor_type = 'watch.gone';

-- # Outside a turn; unknown types
CALL fails($$SELECT djactor.watch('watch', 't')$$);
CALL fails($$SELECT djactor.unwatch('watch', 't')$$);
BEGIN;
SELECT tell('watch', 'u', 'unknown', $$CALL fails('SELECT djactor.watch(''no such type'', ''t'')')$$);
SELECT djactor.drain();
ROLLBACK;

SELECT count(djactor.drop_actor_type(name, true)) AS dropped FROM djactor.actor_type WHERE name LIKE 'watch%';
SELECT count(*) AS watches FROM djactor.watch;
DROP FUNCTION show, obey, tell, heard;
DROP TABLE told;
