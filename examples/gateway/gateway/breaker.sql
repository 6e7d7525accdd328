-- breaker.sql
--     The circuit breaker of an upstream, gateway.breaker; its key is the upstream's name.
--
-- closed      requests pass; after some failures in a row it opens
-- open        nothing passes, until the timer "try" fires
-- half_open   one request passes, as a probe; its success closes the breaker, its failure opens it
--
-- To {"ask": "pass"} it replies whether a request may pass, and where to. {"ok": true or false,
-- "round": ...} reports the outcome of a request. A change of the mode begins a new round. Reports of an
-- earlier round have no effect: a request that was slow to fail does not spoil the probe.
--
-- The timer is a row that commits with the mode, so no breaker stays open for ever because a process
-- died. It is also set during a probe: if that is never reported, the timer allows another probe.

CREATE OR REPLACE FUNCTION gateway_breaker_try_after(cool_down interval) RETURNS float8 LANGUAGE plpgsql AS $$
BEGIN
  PERFORM djactor.set_timer('try', after => cool_down);
  RETURN extract(epoch FROM djactor.now() + cool_down);
END $$;

CREATE OR REPLACE FUNCTION gateway_breaker_handle(state jsonb, message jsonb)
RETURNS djactor.result LANGUAGE plpgsql AS $$
DECLARE
  upstream gateway_upstream;
  kind text := (djactor.message()).kind;
  mode text := state->>'mode';
  failures int := (state->>'failures')::int;
  probing boolean := (state->>'probing')::boolean;
  until float8 := (state->>'until')::float8;      -- when the timer is due, for replies
  passes boolean;
  reply jsonb;
BEGIN
  SELECT * INTO upstream FROM gateway_upstream WHERE name = (djactor.self()).actor_key;
  IF NOT FOUND THEN
    PERFORM djactor.stop();
    RETURN (NULL::jsonb, '{"known": false}'::jsonb);
  END IF;

  IF kind = 'timer' THEN
    mode := 'half_open';
    probing := false;

  ELSIF message ? 'ask' THEN
    passes := mode = 'closed' OR mode = 'half_open' AND NOT probing;
    IF passes AND mode = 'half_open' THEN
      probing := true;
      until := gateway_breaker_try_after(upstream.cool_down);
    END IF;
    reply := jsonb_build_object('known', true, 'pass', passes, 'url', upstream.url, 'round', state->'round',
      'report_success', mode <> 'closed' OR failures > 0,      -- a healthy upstream causes no reports
      'wait', greatest(0, until - extract(epoch FROM djactor.now())));

  ELSIF (message->>'round')::int IS DISTINCT FROM (state->>'round')::int THEN
    RETURN NULL;                                                -- neither a new state nor a reply

  ELSIF (message->>'ok')::boolean THEN
    mode := 'closed';
    failures := 0;
    probing := false;
    PERFORM djactor.cancel_timer('try');

  ELSE
    failures := failures + 1;
    IF mode = 'half_open' OR failures >= upstream.failures THEN
      mode := 'open';
      probing := false;
      until := gateway_breaker_try_after(upstream.cool_down);
    END IF;
  END IF;

  RETURN (
    jsonb_build_object('mode', mode, 'failures', failures, 'probing', probing,
      'round', (state->>'round')::int + (mode <> state->>'mode')::int,
      'passed', (state->>'passed')::int + coalesce(passes, false)::int,
      'refused', (state->>'refused')::int + coalesce(NOT passes, false)::int,
      'until', until),
    reply);
END $$;
