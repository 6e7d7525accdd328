-- shop.sql
--     Actors for the admin's pages to show: a shop whose payments fail now and then, whose mail can
--     be kept waiting and whose reports are paused.

CREATE FUNCTION shop_order_handle(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM djactor.send('shop.stock', message->>'article', '{"op": "take", "n": 1}');
	PERFORM djactor.send('shop.payment', message->>'customer', message || '{"op": "pay"}');
	PERFORM djactor.set_timer('unpaid', '3 days');
	RETURN state || message;
END $$;

CREATE FUNCTION shop_payment_handle(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF message->>'card' = 'stolen' THEN
		RAISE EXCEPTION 'card % is reported stolen', message->>'number' USING ERRCODE = 'JA003';
	ELSIF message->>'card' = 'expired' THEN
		RAISE EXCEPTION 'the bank did not accept the card: expired';
	END IF;
	PERFORM djactor.send('shop.mail', message->>'customer', '{"op": "thank", "template": "paid"}');
	RETURN jsonb_build_object('payments', coalesce((state->>'payments')::int, 0) + 1);
END $$;

CREATE FUNCTION shop_count_handle(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF message ? 'lock' THEN	-- the turn lasts until whoever has the lock lets it go
		PERFORM pg_advisory_xact_lock((message->>'lock')::bigint);
	END IF;
	RETURN jsonb_set(state, '{n}', to_jsonb(coalesce((state->>'n')::int, 0) + 1));
END $$;

SELECT djactor.define_actor_type('shop.order', 'shop_order_handle', journal => '1 day');
SELECT djactor.define_actor_type('shop.payment', 'shop_payment_handle', journal => '1 day',
	max_attempts => 2, backoff => '10 ms');
SELECT djactor.define_actor_type('shop.stock', 'shop_count_handle', journal => '1 day');
SELECT djactor.define_actor_type('shop.mail', 'shop_count_handle', journal => '1 day',
	handler_timeout => '5 min');
SELECT djactor.define_actor_type('shop.report', 'shop_count_handle');
