--
-- A stateless type has no rows in djactor.actor: what its turns return is no state. All else is as with other types.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
\i :tests/sql/include/hosted.sql
CREATE TABLE seen (key text, state jsonb, payload jsonb);
CREATE FUNCTION task(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO seen VALUES ((djactor.self()).actor_key, state, message);
	IF message = '"fails"' THEN
		RAISE EXCEPTION 'fails';
	END IF;
	RETURN '"a state"';
END $$;
SELECT djactor.define_actor_type('inside', 'task', stateless => true, initial_state => '{"initial": true}', max_attempts => 1),
	djactor.define_actor_type('hosted', NULL, stateless => true, hosted => true, initial_state => '{"initial": true}', max_attempts => 1);
SELECT djactor.host_open('{hosted}') > 0 AS opened;

-- # Inside: each turn gets the initial state, and leaves no row
SELECT put('inside', 'a', 'p', 'q', 'fails', 'r'), put('inside', 'b', 's');
CALL idle('inside');
SELECT * FROM seen WHERE payload <> '"fails"' ORDER BY payload;
SELECT * FROM actors('inside');
SELECT payload, reason FROM djactor.dead_letter WHERE actor_type = 'inside';

-- # Hosted: likewise
SELECT put('hosted', 'a', 'p', 'q', 'fails', 'r'), put('hosted', 'b', 's');
SELECT * FROM claims(100, 3);
SELECT complete('p', 's');
BEGIN;
SELECT begin_turn('q');
SELECT djactor.self();
CALL djactor.end_turn('"a state"');
COMMIT;
SELECT fail('fails');
SELECT * FROM claims();
SELECT complete('r');
SELECT * FROM actors('hosted');
SELECT payload, reason FROM djactor.dead_letter WHERE actor_type = 'hosted';
SELECT handled, dead FROM djactor.stat WHERE actor_type IN ('inside', 'hosted');

-- # Replies, keys and timers are not of the state
SELECT djactor.send('hosted', 'c', '"asks"', wants_reply => true, idempotency_key => 'k') AS ask \gset
SELECT djactor.send('hosted', 'c', '"asks again"', idempotency_key => 'k') > 0 AS sent;
SELECT * FROM claims(100, 1);
BEGIN;
SELECT begin_turn('asks');
SELECT djactor.set_timer('t', '1 ms', '"fires"');
CALL djactor.end_turn(NULL, '"answer"');
COMMIT;
SELECT payload FROM djactor.reply WHERE message_id = :ask;
CALL take_until('fires');
SELECT complete('fires');
SELECT duplicates FROM djactor.stat WHERE actor_type = 'hosted';
SELECT * FROM actors('hosted');

-- # What an actor's row is needed for makes one: a stash, a suspension, a pause
SELECT put('hosted', 'd', 'stashed', 'opens');
SELECT * FROM claims();
BEGIN;
SELECT begin_turn('stashed');
SELECT djactor.stash();
CALL djactor.end_turn();
SELECT begin_turn('opens');
SELECT djactor.unstash_all();
CALL djactor.end_turn();
COMMIT;
SELECT * FROM claims();
SELECT complete('stashed');
SELECT count(*) AS waiting FROM djactor.message WHERE actor_type = 'hosted';

SELECT djactor.host_close();
SELECT djactor.drop_actor_type('hosted', true), djactor.drop_actor_type('inside', true);
DELETE FROM djactor.dead_letter WHERE actor_type IN ('hosted', 'inside');
DELETE FROM djactor.reply;
DROP FUNCTION task;
DROP TABLE seen;
\i :tests/sql/include/hosted_end.sql
