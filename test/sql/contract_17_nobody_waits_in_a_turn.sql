--
-- Contract 17: no call inside a turn waits for another actor. In the transaction that sent the message, wait_reply() returns the
-- reply that is already there, else it raises at once instead of hanging.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql

CREATE FUNCTION c17(state jsonb, message jsonb) RETURNS djactor.result LANGUAGE plpgsql AS $$
BEGIN
	IF message ? 'run' THEN
		EXECUTE message ->> 'run';
	END IF;
	RETURN ROW(NULL::jsonb, '"an answer"'::jsonb);
END $$;
SELECT djactor.define_actor_type('c17', 'c17', max_attempts => 1);

-- # Whatever would wait is refused in a turn
INSERT INTO djactor.message (actor_type, actor_key, payload) SELECT 'c17', 'a', jsonb_build_object('run', statement) FROM unnest('{
	SELECT djactor.wait_reply(djactor.send(''c17''\, ''b''\, wants_reply => true)),
	CALL djactor.ask(''c17''\, ''b''),
	SELECT djactor.wait_idle(''1 min''),
	SELECT djactor.drain()}'::text[]) statement;
CALL idle('c17');
SELECT sqlstate, error FROM djactor.dead_letter WHERE actor_type = 'c17' ORDER BY id;

-- # In the transaction that sent: refused at once, until drain() has handled it
BEGIN;
SELECT djactor.send('c17', 'b', wants_reply => true) AS id \gset
SAVEPOINT s;
\set VERBOSITY sqlstate
SELECT djactor.wait_reply(:id, '1 min');
\set VERBOSITY default
ROLLBACK TO s;
SELECT djactor.drain();
SELECT djactor.wait_reply(:id, '1 min');
ROLLBACK;

-- # ask() commits, so it is not for transaction blocks; outside of them it waits
BEGIN;
\set VERBOSITY terse
CALL djactor.ask('c17', 'b');
\set VERBOSITY default
ROLLBACK;
CALL djactor.ask('c17', 'b', timeout => '1 min');

SELECT djactor.drop_actor_type('c17', true);
DELETE FROM djactor.dead_letter WHERE actor_type = 'c17';
DELETE FROM djactor.reply;
DROP FUNCTION c17;
