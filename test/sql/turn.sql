--
-- A turn: what the handler gets, and what becomes of what it returns.
-- Section 2 (handlers, in a turn), section 3 points 1 and 21.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql

-- # jsonb: the returned value is the new state; the first turn gets the initial state
CREATE FUNCTION count_up(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS
	$$SELECT jsonb_build_object('n', (state -> 'n')::int + (message -> 'add')::int)$$;
SELECT djactor.define_actor_type('turn.count', 'count_up', initial_state => '{"n": 100}');
SELECT count(*) FROM djactor.actor WHERE actor_type = 'turn.count';
SELECT djactor.send('turn.count', 'a', '{"add": 1}') > 0 AS sent;
CALL idle('turn.count');
SELECT actor_key, state, status, turns, failures, last_error, paused, created_at = updated_at AS just_created
FROM djactor.actor WHERE actor_type = 'turn.count';
SELECT djactor.send('turn.count', 'a', '{"add": 1}') > 0 AS sent;
INSERT INTO djactor.message (actor_type, actor_key, payload)
SELECT 'turn.count', key, jsonb_build_object('add', i) FROM generate_series(1, 10) i, unnest('{a,b}'::text[]) key;
CALL idle('turn.count');
SELECT actor_key, state, turns, created_at <= updated_at AS in_order FROM djactor.actor WHERE actor_type = 'turn.count' ORDER BY 1;

-- # Each actor has an id of its own, and one row
SELECT count(DISTINCT id) AS ids, count(DISTINCT (actor_type, actor_key)) AS actors, count(*) AS rows
FROM djactor.actor WHERE actor_type = 'turn.count';

-- # void: the state stays, the turn counts
CREATE FUNCTION keep(state jsonb, message jsonb) RETURNS void LANGUAGE sql AS '';
SELECT djactor.define_actor_type('turn.void', 'keep', initial_state => '["untouched"]');
INSERT INTO djactor.message (actor_type, actor_key) VALUES ('turn.void', 'v'), ('turn.void', 'v');
CALL idle('turn.void');
SELECT state, turns FROM djactor.actor WHERE actor_type = 'turn.void';

-- # self() and message() tell who runs and what is being handled
CREATE FUNCTION tell(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	m djactor.message := djactor.message();
BEGIN
	RETURN jsonb_build_object(
		'self', to_jsonb(djactor.self()),
		'payload', m.payload = message,
		'message', to_jsonb(m) - '{id,payload,trace_id,sent_at}'::text[]);
END $$;
SELECT djactor.define_actor_type('turn.tell', 'tell');
SELECT djactor.send('turn.tell', 't', '1') > 0 AS sent;
CALL idle('turn.tell');
SELECT djactor.send('turn.tell', 't', '{"big": "payload"}', priority => 3, expires_at => 'infinity', headers => '{"h": 1}') > 0 AS sent;
CALL idle('turn.tell');
SELECT jsonb_pretty(state) AS state FROM djactor.actor WHERE actor_type = 'turn.tell';

-- # Handlers in any language: SQL, PL/pgSQL, and functions of the server itself
SELECT djactor.define_actor_type('turn.internal', 'pg_catalog.jsonb_concat');
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES
	('turn.internal', 'i', '{"a": 1}'), ('turn.internal', 'i', '{"b": 2}'), ('turn.internal', 'i', '{"a": 3}');
CALL idle('turn.internal');
SELECT state, turns FROM djactor.actor WHERE actor_type = 'turn.internal';

-- # JSON null is a value, as payload and as state
CREATE FUNCTION echo(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT $2';
SELECT djactor.define_actor_type('turn.echo', 'echo', initial_state => 'null');
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES
	('turn.echo', 'null', 'null'), ('turn.echo', 'number', '1.50'), ('turn.echo', 'string', '"ä\n"'),
	('turn.echo', 'array', '[]'), ('turn.echo', 'true', 'true');
CALL idle('turn.echo');
SELECT actor_key, state, jsonb_typeof(state) FROM djactor.actor WHERE actor_type = 'turn.echo' ORDER BY actor_key;

-- # A handler may write tables, use exception blocks and savepoints, and send to its own actor
CREATE TABLE written (n int PRIMARY KEY);
CREATE FUNCTION countdown(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO written VALUES (message::int);
	BEGIN
		INSERT INTO written VALUES (message::int);
	EXCEPTION WHEN unique_violation THEN
		IF message::int > 0 THEN
			PERFORM djactor.send('turn.countdown', (djactor.self()).actor_key, to_jsonb(message::int - 1));
		END IF;
	END;
	RETURN collect(state, message);
END $$;
SELECT djactor.define_actor_type('turn.countdown', 'countdown');
SELECT djactor.send('turn.countdown', 'c', '5') > 0 AS sent;
CALL idle('turn.countdown');
SELECT state FROM djactor.actor WHERE actor_type = 'turn.countdown';
SELECT array_agg(n ORDER BY n) AS written FROM written;

SELECT count(djactor.drop_actor_type(name, true)) AS dropped FROM djactor.actor_type WHERE name LIKE 'turn.%';
DROP TABLE written;
DROP FUNCTION count_up, keep, tell, echo, countdown;
