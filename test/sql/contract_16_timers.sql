--
-- Contract 16: timers are durable, named and replaceable, and never early. Missed periods become one firing with their count.
-- After a committed cancel no firing follows, not even one that lies in the mailbox already.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql

CREATE FUNCTION c16(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	m djactor.message := djactor.message();
BEGIN
	IF m.kind = 'timer' THEN
		IF message ? 'once' THEN
			PERFORM djactor.cancel_timer(m.meta ->> 'name');
		END IF;
		RETURN collect(state, jsonb_build_object('fired', m.meta -> 'name', 'payload', message, 'missed', CASE
			WHEN (m.meta -> 'missed')::int < 5 THEN m.meta -> 'missed' ELSE '"many"' END, 'early', djactor.now() < (m.meta ->> 'due_at')::timestamptz));
	ELSIF message ? 'cancel' THEN
		RETURN collect(state, jsonb_build_object('cancelled', message -> 'cancel', 'was there', djactor.cancel_timer(message ->> 'cancel')));
	END IF;
	PERFORM djactor.set_timer(t ->> 'name', after => (t ->> 'after')::interval, every => (t ->> 'every')::interval, payload => coalesce(t -> 'payload', '{}'))
		FROM jsonb_array_elements(message -> 'set') t;
	IF message ? 'pause' THEN
		PERFORM djactor.pause((djactor.self()).actor_type);
	END IF;
	RETURN state;
END $$;
SELECT djactor.define_actor_type('c16', 'c16', initial_state => '[]');
\set shown 'SELECT actor_key, s FROM djactor.actor, jsonb_array_elements(state) WITH ORDINALITY x (s, n) WHERE actor_type = \'c16\' ORDER BY actor_key, n'

-- # One that fires once, one that fires each hour, one that was replaced: in the order in which they are due, none early
BEGIN;
SELECT djactor.send('c16', 'due', '{"set": [{"name": "once", "after": "90 min"}, {"name": "hourly", "every": "1 h"},
	{"name": "replaced", "after": "10 min", "payload": "the first"}, {"name": "replaced", "after": "100 min", "payload": "the second"}]}') > 0 AS sent;
SELECT djactor.drain();
SELECT name, due_at - now() BETWEEN interval '59 min' AND interval '101 min' AS due, every FROM djactor.timer WHERE actor_type = 'c16' ORDER BY name;
SELECT djactor.drain(until => now() + interval '59 min') AS fired;
SELECT djactor.drain(until => now() + interval '150 min') AS fired;
:shown;
SELECT name, every FROM djactor.timer WHERE actor_type = 'c16' ORDER BY name;
ROLLBACK;

-- # Cancelled when it lies in the mailbox: the one that cancels and the firing become due together, and go by priority
BEGIN;
SELECT djactor.send('c16', 'cancel', '{"set": [{"name": "t", "after": "1 h"}, {"name": "other", "after": "1 h"}]}') > 0 AS sent;
SELECT djactor.drain();
INSERT INTO djactor.message (actor_type, actor_key, payload, deliver_at, priority)
	SELECT 'c16', 'cancel', '{"cancel": "t"}', due_at, 1 FROM djactor.timer WHERE actor_type = 'c16' AND name = 't';
SELECT djactor.send('c16', 'cancel', '{"cancel": "t"}', deliver_at => now() + interval '3 h') > 0 AS sent;
SELECT djactor.drain(until => now() + interval '4 h');
:shown;
SELECT count(*) AS waiting FROM djactor.message WHERE actor_type = 'c16';
ROLLBACK;

-- # Of real workers: the type sleeps through many periods, which become one firing with their count
SELECT djactor.send('c16', 'late', '{"set": [{"name": "tick", "every": "10 ms", "payload": ["once"]}], "pause": true}') > 0 AS sent;
CALL idle('c16');
SELECT count(*) AS timers FROM djactor.timer WHERE actor_type = 'c16';
SELECT pg_sleep(0.3);
SELECT djactor.resume('c16');
CALL wait_until($$NOT EXISTS (SELECT FROM djactor.timer WHERE actor_type = 'c16')$$);
CALL idle('c16');
:shown;

SELECT djactor.drop_actor_type('c16', true);
DROP FUNCTION c16;
