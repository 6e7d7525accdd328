-- The tenant comes with the message and goes with whatever the turn sends.
CREATE OR REPLACE FUNCTION take_order(state jsonb, message jsonb) RETURNS djactor.result LANGUAGE plpgsql AS $$
DECLARE
	n int := (state->>'n')::int + 1;
BEGIN
	PERFORM set_config('search_path', quote_ident((djactor.message()).headers->>'tenant') || ', public', true);
	INSERT INTO orders_order (customer, amount) VALUES (message->>'customer', (message->>'amount')::int);
	RETURN (jsonb_build_object('n', n), jsonb_build_object('n', n));
END $$;
