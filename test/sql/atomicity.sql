--
-- A turn commits as a whole or leaves nothing.
-- Section 3 points 3 and 11.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
CREATE TABLE ledger (entry text);
CREATE FUNCTION pay(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO ledger VALUES (message ->> 'entry');
	PERFORM djactor.send('atomic.sink', 'sink', message);
	INSERT INTO djactor.message (actor_type, actor_key, payload, deliver_at)
	VALUES ('atomic.sink', 'later', message, now() + '1 day');
	IF message ? 'fail' THEN
		RAISE EXCEPTION 'after all that';
	END IF;
	RETURN collect(state, message -> 'entry');
END $$;
SELECT djactor.define_actor_type('atomic.sink', 'collect');
SELECT djactor.define_actor_type('atomic.pay', 'pay', max_attempts => 2, backoff => '1 ms');

-- # State, table rows and sends of a turn that fails are gone, at each attempt; its neighbours' are all there
SELECT djactor.pause('atomic.pay');
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES
	('atomic.pay', 'p', '{"entry": "first"}'),
	('atomic.pay', 'p', '{"entry": "bad", "fail": true}'),
	('atomic.pay', 'p', '{"entry": "last"}'),
	('atomic.pay', 'q', '{"entry": "worse", "fail": true}'),
	('atomic.pay', 'r', '{"entry": "other"}');
SELECT djactor.resume('atomic.pay');
CALL idle('atomic.pay');
CALL idle('atomic.sink');
SELECT entry FROM ledger ORDER BY 1;
SELECT actor_key, state, turns, failures FROM djactor.actor WHERE actor_type = 'atomic.pay' ORDER BY 1;
SELECT payload ->> 'entry' AS received FROM djactor.actor, jsonb_array_elements(state) payload
WHERE actor_type = 'atomic.sink' ORDER BY 1;
SELECT payload ->> 'entry' AS delayed FROM djactor.message WHERE actor_type = 'atomic.sink' ORDER BY 1;
SELECT actor_key, payload, attempts FROM djactor.dead_letter WHERE actor_type = 'atomic.pay' ORDER BY 1;

-- # Table rows, sends and removal come in one commit: whoever sees one sees all
TRUNCATE ledger;
SELECT djactor.pause('atomic.pay');
INSERT INTO djactor.message (actor_type, actor_key, payload)
SELECT 'atomic.pay', 's' || i % 7, jsonb_build_object('entry', i) FROM generate_series(1, 1000) i;
CREATE TABLE seen (waiting bigint, entries bigint, turns numeric);
SELECT djactor.resume('atomic.pay');
DO $$
DECLARE
	done boolean := false;
BEGIN
	WHILE NOT done AND clock_timestamp() < now() + interval '1 min' LOOP
		INSERT INTO seen SELECT
			(SELECT count(*) FROM djactor.message WHERE actor_type = 'atomic.pay'),
			(SELECT count(*) FROM ledger),
			(SELECT COALESCE(sum(turns), 0) FROM djactor.actor WHERE actor_type = 'atomic.pay' AND actor_key LIKE 's_');
		SELECT waiting = 0 INTO done FROM seen ORDER BY waiting LIMIT 1;
		PERFORM pg_sleep(0.002);
	END LOOP;
END $$;
SELECT DISTINCT waiting + entries = 1000 AS message_or_entry, entries = turns AS entry_and_turn FROM seen;

DELETE FROM djactor.dead_letter WHERE actor_type LIKE 'atomic.%';
SELECT djactor.drop_actor_type('atomic.pay', true), djactor.drop_actor_type('atomic.sink', true);
DROP TABLE ledger, seen;
DROP FUNCTION pay;
