-- The package works: workers handle what is sent. Run by psql with ON_ERROR_STOP, on a server that
-- preloads the library.
CREATE EXTENSION djactor;
CREATE FUNCTION handle(state jsonb, message jsonb) RETURNS djactor.result LANGUAGE plpgsql AS $$
BEGIN
	state := jsonb_build_object('n', COALESCE((state->>'n')::int, 0) + (message->>'add')::int);
	RETURN (state, state);
END $$;
SELECT djactor.define_actor_type('smoke', 'handle');
SELECT count(djactor.send('smoke', (i % 10)::text, '{"add": 1}')) FROM generate_series(1, 1000) i;
CALL djactor.ask('smoke', '7', '{"add": 1}', '1 min');
SELECT djactor.wait_idle('1 min');
DO $$
BEGIN
	ASSERT (SELECT sum((state->>'n')::int) FROM djactor.actor) = 1001, 'not every message was handled once';
END $$;
