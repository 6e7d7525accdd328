-- bucket.sql
--     The rate limiter of a client, gateway.bucket; its key is the client's name. A token bucket.
--
-- Any ask takes a token if there is one. However many requests come at once, in however many processes,
-- the turns of one bucket run one after the other, so no token is taken twice.
--
-- State: the tokens at the time at (seconds since 1970), the limits that applied then, and the number
-- of requests that were allowed and refused.

CREATE OR REPLACE FUNCTION gateway_bucket_handle(state jsonb, message jsonb)
RETURNS djactor.result LANGUAGE plpgsql AS $$
DECLARE
  client gateway_client;
  at float8 := extract(epoch FROM djactor.now());
  tokens float8;
  allowed boolean;
BEGIN
  SELECT * INTO client FROM gateway_client WHERE name = (djactor.self()).actor_key;
  IF NOT FOUND THEN
    PERFORM djactor.stop();   -- made-up names leave no actors behind
    RETURN (NULL::jsonb, '{"known": false}'::jsonb);
  END IF;

  -- Add the tokens that have accrued since; a new bucket is full. A clock that was set back removes none.
  tokens := least(client.burst, coalesce(
    (state->>'tokens')::float8 + client.rate * greatest(0, at - (state->>'at')::float8), client.burst));
  allowed := tokens >= 1;
  IF allowed THEN
    tokens := tokens - 1;
  END IF;

  RETURN (
    jsonb_build_object('tokens', tokens, 'at', at, 'rate', client.rate, 'burst', client.burst,
      'allowed', (state->>'allowed')::int + allowed::int, 'refused', (state->>'refused')::int + (NOT allowed)::int),
    jsonb_build_object('known', true, 'allowed', allowed, 'limit', client.burst, 'remaining', floor(tokens),
      'reset', (client.burst - tokens) / client.rate, 'wait', greatest(0, 1 - tokens) / client.rate));
END $$;
