--
-- The end of an actor: stop() and stop_actor().
-- Section 2 (stop, stop_actor), section 3 points 6, 18 and 23.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
\i :tests/sql/include/obey.sql
SELECT djactor.define_actor_type('stop', 'obey', max_attempts => 1, breaker_failures => NULL);

-- # stop() takes the actor's row away at the end of the turn; what the turn did and sent stands; what waits goes to a fresh actor, in order
BEGIN;
SELECT tell('stop', 's', '1'), tell('stop', 's', '2', $$SELECT tell('stop', 's', 'sent by 2')$$, $$SELECT djactor.stop()$$, $$SELECT tell('stop', 'other', 'sent by 2')$$), tell('stop', 's', '3'), tell('stop', 's', '4');
COMMIT;
CALL idle('stop');
SELECT * FROM heard();
SELECT actor_key, state, turns FROM djactor.actor WHERE actor_type = 'stop' ORDER BY 1;
SELECT tell('stop', key, 'last', $$SELECT djactor.stop()$$) FROM unnest('{s,other}'::text[]) key;
CALL idle('stop');
SELECT count(*) AS actors, (SELECT count(*) FROM djactor.actor_identity WHERE actor_type = 'stop') AS identities FROM djactor.actor WHERE actor_type = 'stop';
SELECT count(*) AS heard FROM heard();

-- # A first turn that stops, or rejects, leaves no row
SELECT tell('stop', 'first', 'stops', $$SELECT djactor.stop()$$), tell('stop', 'rejects', 'rejects', $$SELECT djactor.reject('no')$$);
CALL idle('stop');
SELECT count(*) AS actors, (SELECT count(*) FROM djactor.actor_identity WHERE actor_type = 'stop') AS identities FROM djactor.actor WHERE actor_type = 'stop';
SELECT actor_key, reason, error FROM djactor.dead_letter WHERE actor_type = 'stop';
SELECT count(*) AS heard FROM heard();

-- # With discard what waits is given up: dead letters with reason stopped; also what is stashed or delayed
BEGIN;
SELECT tell('stop', 'd', '1', $$SELECT djactor.stash()$$), tell('stop', 'd', '2', $$SELECT djactor.stop(true)$$), tell('stop', 'd', '3'), tell('stop', 'd', '4'), tell('stop', 'kept', '5');
INSERT INTO djactor.message (actor_type, actor_key, payload, deliver_at) VALUES ('stop', 'd', '"delayed"', now() + interval '1 h');
COMMIT;
CALL idle('stop');
SELECT * FROM heard();
SELECT coalesce(payload->>'n', payload #>> '{}') AS word, reason, attempts FROM djactor.dead_letter WHERE actor_type = 'stop' AND actor_key = 'd' ORDER BY id;
SELECT count(*) AS left FROM djactor.message WHERE actor_type = 'stop';
SELECT djactor.stop_actor('stop', 'kept'), djactor.stop_actor('stop', 'd');

-- # A stop in a subtransaction that is rolled back, or in a failed turn, is none
SELECT tell('stop', 'n', '1'), tell('stop', 'n', '2', $q$DO $$BEGIN PERFORM djactor.stop(true); RAISE division_by_zero; EXCEPTION WHEN OTHERS THEN NULL; END$$$q$),
	tell('stop', 'n', '3', $$SELECT djactor.stop()$$, $$SELECT 1/0$$), tell('stop', 'n', '4');
CALL idle('stop');
SELECT * FROM heard();
SELECT state, turns FROM djactor.actor WHERE actor_type = 'stop';

-- # What was stashed comes before what waits; also when the turn that stops has stashed its own message
BEGIN;
SELECT tell('stop', 'n', 'stashed', $$SELECT CASE WHEN (djactor.self()).turns > 0 THEN djactor.stash() END$$), tell('stop', 'n', 'stops', $$SELECT djactor.stop()$$), tell('stop', 'n', 'waits');
COMMIT;
CALL idle('stop');
SELECT * FROM heard();
BEGIN;
SELECT tell('stop', 'n', 'both', $$SELECT CASE WHEN (djactor.self()).turns > 0 THEN djactor.stash() END$$, $$SELECT CASE WHEN (djactor.self()).turns > 0 THEN djactor.stop() END$$), tell('stop', 'n', 'waits');
COMMIT;
CALL idle('stop');
SELECT * FROM heard();
SELECT count(*) AS left FROM djactor.message WHERE actor_type = 'stop';

-- # Asks left open get an error, the one that is deferred in the last turn too; one that is answered has its answer
SELECT djactor.send('stop', 'ask', '{"n": "open", "do": ["SELECT djactor.defer_reply()"]}', wants_reply => true) AS ask1 \gset
SELECT djactor.send('stop', 'ask', '{"n": "last", "do": ["SELECT djactor.defer_reply()", "SELECT djactor.stop()"]}', wants_reply => true) AS ask2 \gset
SELECT djactor.send('stop', 'ask', '{"n": "replies", "do": ["SELECT djactor.stop()"]}', wants_reply => true) AS ask3 \gset
CALL idle('stop');
SELECT payload, error FROM djactor.reply WHERE message_id IN (:ask1, :ask2, :ask3) ORDER BY message_id;
SELECT count(*) AS left FROM djactor.message WHERE actor_type = 'stop';

-- # With discard who waits for an answer gets an error
SELECT djactor.pause('stop');
BEGIN;
SELECT tell('stop', 'ask', 'stops', $$SELECT djactor.stop(true)$$);
SELECT djactor.send('stop', 'ask', '"discarded"', wants_reply => true) AS ask1 \gset
COMMIT;
SELECT djactor.resume('stop');
CALL idle('stop');
SELECT payload, error FROM djactor.reply WHERE message_id = :ask1;
SELECT count(*) >= 0 AS heard FROM heard();

-- # stop_actor(): from outside, in a transaction; from another actor's turn, in the same batch or not
SELECT tell('stop', key, '1') FROM unnest('{a,b,c,d}'::text[]) key;
CALL idle('stop');
BEGIN;
SELECT djactor.stop_actor('stop', 'a'), djactor.stop_actor('stop', 'nobody'), djactor.stop_actor('stop', 'a') AS again;
ROLLBACK;
SELECT djactor.stop_actor('stop', 'a'), djactor.stop_actor('stop', 'a') AS again;
SELECT tell('stop', 'b', '2', $$SELECT djactor.stop_actor('stop', 'c')$$);
CALL idle('stop');
SELECT actor_key FROM djactor.actor WHERE actor_type = 'stop' AND actor_key < 'e' ORDER BY 1;
BEGIN;
SELECT tell('stop', 'd', '2'), tell('stop', 'b', '3', $$SELECT djactor.stop_actor('stop', 'd')$$);
COMMIT;
CALL idle('stop');
SELECT tell('stop', 'd', '3');
CALL idle('stop');
SELECT actor_key, state FROM djactor.actor WHERE actor_type = 'stop' AND actor_key = 'd';
SELECT * FROM heard();

-- # A mate of the batch that has mail in memory: its stash comes first, its mail is handled by the fresh actor, once
SELECT tell('stop', 'd', 'stashed', $$SELECT CASE WHEN (djactor.self()).turns > 0 THEN djactor.stash() END$$);
CALL idle('stop');
BEGIN;
SELECT tell('stop', 'b', 'stops d', $$SELECT djactor.stop_actor('stop', 'd')$$), tell('stop', 'd', '1'), tell('stop', 'd', '2');
COMMIT;
CALL idle('stop');
SELECT * FROM heard() WHERE actor_key = 'd';
SELECT count(*) AS left FROM djactor.message WHERE actor_type = 'stop';

-- # A firing that the batch has read when its actor stops goes with its timer; it is no matter of the turns that follow
SELECT tell('stop', 't', 'sets', $$SELECT djactor.set_timer('x', interval '0')$$, $$SELECT djactor.pause('stop', 't')$$);
CALL wait_until($$EXISTS (SELECT FROM djactor.message WHERE actor_type = 'stop' AND kind = 'timer' AND released)$$);
BEGIN;
INSERT INTO djactor.message (actor_type, actor_key, payload, priority) VALUES ('stop', 't', '{"n": "stops", "do": ["SELECT djactor.stop()"]}', 5);
SELECT tell('stop', 'u', key) FROM unnest('{1,2}'::text[]) key;
SELECT djactor.resume('stop', 't');
COMMIT;
CALL idle('stop');
SELECT * FROM heard();
SELECT count(*) AS left FROM djactor.message WHERE actor_type = 'stop';

-- # drain() does the same
BEGIN;
SELECT tell('stop', 'drain', '1'), tell('stop', 'drain', '2', $$SELECT djactor.stop()$$), tell('stop', 'drain', '3'), tell('stop', 'drain', '4', $$SELECT djactor.stop(true)$$), tell('stop', 'drain', '5');
SELECT djactor.drain();
SELECT * FROM heard();
SELECT count(*) AS actors FROM djactor.actor WHERE actor_key = 'drain';
SELECT payload->>'n' AS word, reason FROM djactor.dead_letter WHERE actor_key = 'drain';
ROLLBACK;

-- # Outside a turn; unknown types; read-only transactions; actors of others
CALL fails($$SELECT djactor.stop()$$);
CALL fails($$SELECT djactor.stop_actor('no such type', 'x')$$);
BEGIN READ ONLY;
SELECT djactor.stop_actor('stop', 'b');
ROLLBACK;
CREATE ROLE stop_stranger;
GRANT USAGE ON SCHEMA djactor TO stop_stranger;
SET ROLE stop_stranger;
CALL refused($$SELECT djactor.stop_actor('stop', 'b')$$);
RESET ROLE;
REVOKE USAGE ON SCHEMA djactor FROM stop_stranger;
DROP ROLE stop_stranger;

SELECT djactor.drop_actor_type('stop', true);
DELETE FROM djactor.reply;
DROP FUNCTION obey, tell, heard;
DROP TABLE told;
