-- device.sql
--     The actor of a device, events.device; its key is the device's name.
--
-- One turn of a device runs at a time, so reading and changing its state needs no locks. Everything that a
-- turn writes and sends, and its timers, commit with the removal of its message, or not at all.
--
-- State: value and at of the newest event, recent values, the number of events (count) and of late
-- ones (late), the current minute, and the kinds of alerts that are on.

-- Switches an alert on or off. The desk hears of changes only, in the order in which they happened.
CREATE OR REPLACE FUNCTION events_switch_alert(state jsonb, kind text, is_on boolean, value numeric)
RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
  IF (state->'alerts' ? kind) = is_on THEN
    RETURN state;
  END IF;
  PERFORM djactor.send('events.desk', 'main', jsonb_build_object(
    'device', (djactor.self()).actor_key, 'kind', kind, 'is_on', is_on, 'value', value, 'at', djactor.now()));
  RETURN jsonb_set(state, '{alerts}',
    CASE WHEN is_on THEN state->'alerts' || to_jsonb(kind) ELSE (state->'alerts') - kind END);
END $$;

CREATE OR REPLACE FUNCTION events_device_handle(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
  device events_device;
  measured numeric := (message->>'value')::numeric;   -- a Decimal travels as a string
  at timestamptz := (message->>'at')::timestamptz;
  this_minute jsonb;
BEGIN
  IF (djactor.message()).kind = 'timer' THEN
    RETURN events_switch_alert(state, 'silent', true, NULL);
  END IF;

  SELECT * INTO device FROM events_device WHERE name = (djactor.self()).actor_key;
  IF NOT FOUND THEN
    INSERT INTO events_device (name) VALUES ((djactor.self()).actor_key) RETURNING * INTO device;
  END IF;

  -- Late events count too, in the minute in which they were measured.
  INSERT INTO events_minute AS m (device_id, minute, count, total, low, high)
    VALUES (device.name, date_trunc('minute', at), 1, measured, measured, measured)
    ON CONFLICT (device_id, minute) DO UPDATE SET count = m.count + 1, total = m.total + measured,
      low = least(m.low, measured), high = greatest(m.high, measured)
    RETURNING jsonb_build_object('count', count, 'mean', round(total / count, 1), 'low', low, 'high', high)
    INTO this_minute;

  -- Any event shows that the device is alive. Setting the timer again postpones it; it is as durable as the state.
  PERFORM djactor.set_timer('silent', after => device.silent_after);
  state := events_switch_alert(state, 'silent', false, NULL);
  state := jsonb_set(state, '{count}', to_jsonb((state->>'count')::int + 1));

  IF at < (state->>'at')::timestamptz THEN
    RETURN jsonb_set(state, '{late}', to_jsonb((state->>'late')::int + 1));
  END IF;

  IF measured > device.hot_above THEN
    state := events_switch_alert(state, 'hot', true, measured);
  ELSIF measured < device.cool_below THEN             -- between the two limits it stays as it is
    state := events_switch_alert(state, 'hot', false, measured);
  END IF;
  RETURN state || jsonb_build_object('value', measured, 'at', at, 'minute', this_minute,
    'recent', CASE WHEN jsonb_array_length(state->'recent') < 40 THEN state->'recent'
      ELSE (state->'recent') - 0 END || to_jsonb(measured));
END $$;
