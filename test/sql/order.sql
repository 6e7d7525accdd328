--
-- The order of turns: highest priority, then lowest id, for each actor.
-- Section 3 points 2, 8, 9 and 10.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
SELECT djactor.define_actor_type('order', 'collect');

-- # One transaction's messages to an actor are handled in the order of their ids
SELECT djactor.pause('order');
INSERT INTO djactor.message (actor_type, actor_key, payload)
SELECT 'order', 'fifo', to_jsonb(i) FROM generate_series(1, 20) i;
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('order', 'fifo', '21');
SELECT djactor.resume('order');
CALL idle('order');
SELECT state FROM djactor.actor WHERE actor_type = 'order' AND actor_key = 'fifo';

-- # Priority goes first, equal priorities by id
SELECT djactor.pause('order');
INSERT INTO djactor.message (actor_type, actor_key, payload, priority) VALUES
	('order', 'priority', '"normal 1"', 0),
	('order', 'priority', '"low"', -32768),
	('order', 'priority', '"high 1"', 32767),
	('order', 'priority', '"normal 2"', 0),
	('order', 'priority', '"below"', -1),
	('order', 'priority', '"above"', 1),
	('order', 'priority', '"high 2"', 32767);
SELECT djactor.resume('order');
CALL idle('order');
SELECT state FROM djactor.actor WHERE actor_type = 'order' AND actor_key = 'priority';

-- # What a turn sends to its own actor comes after what waited already, unless it has priority
CREATE FUNCTION interrupt(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF message = '"interrupt"' THEN
		PERFORM djactor.send('order.interrupt', 'i', '"urgent"', priority => 1);
		PERFORM djactor.send('order.interrupt', 'i', '"afterwards"');
	END IF;
	RETURN collect(state, message);
END $$;
SELECT djactor.define_actor_type('order.interrupt', 'interrupt', batch_size => 1);
SELECT djactor.pause('order.interrupt');
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES
	('order.interrupt', 'i', '1'), ('order.interrupt', 'i', '"interrupt"'), ('order.interrupt', 'i', '2');
SELECT djactor.resume('order.interrupt');
CALL idle('order.interrupt');
SELECT state FROM djactor.actor WHERE actor_type = 'order.interrupt';

-- # Thousands of messages, sent by many transactions while turns run, keep their order at each actor
CREATE FUNCTION check_order(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF message::int <> (state -> 'last')::int + 1 THEN
		RETURN jsonb_set(state, '{disorder}', to_jsonb(message || (state -> 'last')));
	END IF;
	RETURN jsonb_set(state, '{last}', message);
END $$;
SELECT djactor.define_actor_type('order.check', 'check_order', initial_state => '{"last": 0}');
DO $$
BEGIN
	FOR i IN 1 .. 300 LOOP
		INSERT INTO djactor.message (actor_type, actor_key, payload)
		SELECT 'order.check', 'actor ' || k, to_jsonb(i) FROM generate_series(1, 10) k;
		COMMIT;
	END LOOP;
END $$;
CALL idle('order.check');
SELECT actor_key, state, turns FROM djactor.actor WHERE actor_type = 'order.check' ORDER BY 1;

SELECT count(djactor.drop_actor_type(name, true)) AS dropped FROM djactor.actor_type WHERE name LIKE 'order%';
DROP FUNCTION interrupt, check_order;
