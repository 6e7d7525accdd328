CREATE OR REPLACE FUNCTION counter_handle(state jsonb, message jsonb) RETURNS djactor.result LANGUAGE plpgsql AS $$
DECLARE
	n int := coalesce((state->>'n')::int, 0) + coalesce((message->>'add')::int, 0);
BEGIN
	IF message ? 'fail' THEN
		RAISE EXCEPTION 'told to fail, 100 %%' USING ERRCODE = 'JA003';
	END IF;
	INSERT INTO shop_sale (product, amount) VALUES ((djactor.self()).actor_key::int, coalesce((message->>'add')::int, 0));
	RETURN (jsonb_build_object('n', n), jsonb_build_object('n', n));
END $$;
