--
-- retry_order: under hold later mail of the actor waits for the retry, under skip it goes ahead.
-- Section 3 points 9, 10 and 12.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
CREATE FUNCTION picky(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF message ? 'fail' AND (djactor.message()).attempts = 0 THEN
		RAISE EXCEPTION 'not now';
	END IF;
	RETURN collect(state, message);
END $$;
SELECT djactor.define_actor_type('hold', 'picky', retry_order => 'hold', backoff => '1 h');
SELECT djactor.define_actor_type('skip', 'picky', retry_order => 'skip', backoff => '1 h');
SELECT djactor.define_actor_type('hold.soon', 'picky', retry_order => 'hold', backoff => '1 s');
SELECT djactor.define_actor_type('skip.soon', 'picky', retry_order => 'skip', backoff => '1 s');
SELECT djactor.pause(name) FROM unnest('{hold,skip,hold.soon,skip.soon}'::text[]) name;
INSERT INTO djactor.message (actor_type, actor_key, payload)
SELECT name, key, payload::jsonb
FROM unnest('{hold,skip,hold.soon,skip.soon}'::text[]) name,
	(VALUES (1, 'a', '1'), (2, 'a', '{"fail": true}'), (3, 'a', '2'), (4, 'b', '3')) m (i, key, payload)
ORDER BY name, i;
SELECT djactor.resume(name) FROM unnest('{hold,skip,hold.soon,skip.soon}'::text[]) name;

-- # hold: what sorts after the failed message waits with it; no other actor is touched
CALL wait_until($$EXISTS (SELECT FROM djactor.message WHERE actor_type = 'hold' AND attempts = 1)
	AND NOT EXISTS (SELECT FROM djactor.message WHERE actor_type = 'hold' AND actor_key = 'b')$$);
SELECT actor_key, state FROM djactor.actor WHERE actor_type = 'hold' ORDER BY 1;
SELECT actor_key, payload, attempts, retry_at IS NOT NULL AS has_retry_at FROM djactor.message WHERE actor_type = 'hold' ORDER BY id;

-- # ... also what is sent now, but not what has a higher priority
SELECT djactor.send('hold', 'a', '"later"') > 0 AS sent;
SELECT djactor.send('hold', 'a', '"urgent"', priority => 1) > 0 AS sent;
CALL wait_until($$NOT EXISTS (SELECT FROM djactor.message WHERE actor_type = 'hold' AND priority = 1)$$);
SELECT state FROM djactor.actor WHERE actor_type = 'hold' AND actor_key = 'a';
SELECT payload FROM djactor.message WHERE actor_type = 'hold' ORDER BY id;

-- # A message in backoff is not idle
SELECT djactor.wait_idle('50 ms', 'hold');

-- # skip: all others go ahead
CALL wait_until($$(SELECT count(*) FROM djactor.message WHERE actor_type = 'skip') = 1$$);
SELECT actor_key, state FROM djactor.actor WHERE actor_type = 'skip' ORDER BY 1;
SELECT actor_key, payload, attempts, retry_at IS NOT NULL AS has_retry_at FROM djactor.message WHERE actor_type = 'skip' ORDER BY id;
SELECT djactor.wait_idle('50 ms', 'skip');

-- # In the end, hold has kept the order and skip has not
CALL idle('hold.soon');
CALL idle('skip.soon');
SELECT actor_type, state, turns, failures FROM djactor.actor WHERE actor_type IN ('hold.soon', 'skip.soon') AND actor_key = 'a' ORDER BY 1;

SELECT djactor.drop_actor_type(name, true) FROM unnest('{hold,skip,hold.soon,skip.soon}'::text[]) name;
DROP FUNCTION picky;
