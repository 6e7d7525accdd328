--
-- Functions that were compiled before a column or a type has changed: the turn that fails
-- for that is run again in a fresh session, and has used up no attempt.
-- Contract point 12.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
CREATE TABLE thing (id int, v int, n int);
INSERT INTO thing VALUES (1, 2, 3);
CREATE FUNCTION row_of(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	r public.thing%ROWTYPE;
BEGIN
	SELECT * INTO r FROM public.thing;
	RETURN jsonb_build_object('v', r.v, 'attempts', (djactor.message()).attempts);
END $$;
CREATE FUNCTION type_of(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	r public.thing;
	n public.thing.n%TYPE;
BEGIN
	SELECT thing.n INTO n FROM public.thing;
	SELECT * INTO r FROM public.thing;
	RETURN jsonb_build_object('n', n, 'r', to_jsonb(r), 'attempts', (djactor.message()).attempts);
END $$;
SELECT djactor.define_actor_type('row', 'public.row_of', max_attempts => 1), djactor.define_actor_type('type', 'public.type_of', max_attempts => 1),
	djactor.define_actor_type('one', 'public.row_of', max_attempts => 1, batch_size => 1);
CREATE PROCEDURE handled() LANGUAGE plpgsql AS $$
BEGIN
	PERFORM djactor.send(t, k) FROM unnest(ARRAY['row', 'type', 'one']) t, unnest(ARRAY['a', 'b']) k;
	COMMIT;
	CALL idle('row');
	CALL idle('type');
	CALL idle('one');
END $$;
CALL handled();

-- # A column has another type
ALTER TABLE thing ALTER v TYPE text USING 'v' || v;
CALL handled();
SELECT actor_type, actor_key, turns, state FROM djactor.actor WHERE actor_type IN ('row', 'type', 'one') ORDER BY 1, 2;

-- # A wider one, whose values do not fit into the old
ALTER TABLE thing ALTER n TYPE bigint USING 10000000000;
CALL handled();
SELECT actor_type, actor_key, turns, state FROM djactor.actor WHERE actor_type IN ('row', 'type', 'one') ORDER BY 1, 2;

-- # The table was made anew
DROP TABLE thing;
CREATE TABLE thing (id int, v date, n int);
INSERT INTO thing VALUES (1, '2027-07-01', 4);
CALL handled();
SELECT actor_type, actor_key, turns, state FROM djactor.actor WHERE actor_type IN ('row', 'type', 'one') ORDER BY 1, 2;
SELECT count(*) FROM djactor.dead_letter WHERE actor_type IN ('row', 'type', 'one');

-- # What fails in a fresh session, too, is its own failure
CREATE FUNCTION unfit(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	RETURN to_jsonb((message->>'number')::int);
END $$;
SELECT djactor.define_actor_type('unfit', 'public.unfit', max_attempts => 2, backoff => '1 ms');
SELECT djactor.send('unfit', 'k', '{"number": "ten"}') > 0 AS sent;
CALL idle('unfit');
SELECT attempts, sqlstate, error FROM djactor.dead_letter WHERE actor_type = 'unfit';
DROP TABLE thing;
