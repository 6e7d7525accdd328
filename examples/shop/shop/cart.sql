-- cart.sql
--     A customer's cart, shop.cart; its key is in the customer's cookie.
--
-- It runs inside the database: a page that asks it waits for two commits and for no other process.
--
-- {}                                   replies with the cart
-- {"put": "tea", "quantity": 2}        sets the quantity of a product; 0 takes it out
-- {"buy": {"customer", "card"}}        makes an order of it, and replies with the order's number
--
-- Buying is one commit: the order and its lines, the message that begins its saga, and the empty cart.
-- A customer who presses the button twice, or again since no answer came, gets the same order.
--
-- State: lines (quantities by product), order (the latest one).

CREATE OR REPLACE FUNCTION shop_cart_handle(state jsonb, message jsonb) RETURNS djactor.result LANGUAGE plpgsql AS $$
DECLARE
  number uuid;
BEGIN
  IF (djactor.message()).kind = 'timer' THEN
    PERFORM djactor.stop();                           -- nobody has come back for a day
    RETURN (NULL::jsonb, NULL::jsonb);
  END IF;
  IF message ? 'put' THEN
    IF NOT EXISTS (SELECT FROM shop_product WHERE slug = message->>'put') THEN
      PERFORM djactor.reply_error('"there is no such product"');
      RETURN (NULL::jsonb, NULL::jsonb);
    END IF;
    state := jsonb_set(state, '{lines}', CASE WHEN message->'quantity' = '0' THEN (state->'lines') - (message->>'put')
      ELSE state->'lines' || jsonb_build_object(message->>'put', message->'quantity') END);

  ELSIF message ? 'buy' AND state->'lines' <> '{}' THEN
    INSERT INTO shop_order (id, customer, card, total)
      SELECT gen_random_uuid(), message #>> '{buy,customer}', message #>> '{buy,card}', sum(price * value::int)
      FROM jsonb_each_text(state->'lines') JOIN shop_product ON slug = key
      RETURNING id INTO number;
    INSERT INTO shop_line (order_id, product_id, quantity, price)
      SELECT number, slug, value::int, price
      FROM jsonb_each_text(state->'lines') JOIN shop_product ON slug = key;
    PERFORM djactor.send('shop.order', number::text);
    state := jsonb_build_object('lines', '{}'::jsonb, 'order', number);
  END IF;

  IF state = '{"lines": {}}' THEN
    PERFORM djactor.stop();                           -- who only looks leaves no cart behind
  ELSE
    PERFORM djactor.set_timer('forget', after => '1 day');
  END IF;
  RETURN (state, state);
END $$;
