--
-- Retries: exponential backoff with jitter, then dead_letter.
-- Section 3 points 11, 12 and 13.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql

-- fails as often as the message says, then collects how many attempts had failed
CREATE FUNCTION stumble(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF (djactor.message()).attempts < (message ->> 'fail')::int THEN
		RAISE EXCEPTION 'attempt % fails', (djactor.message()).attempts + 1;
	END IF;
	RETURN collect(state, to_jsonb((djactor.message()).attempts));
END $$;

-- # A message that fails and then does not: handled once, under the state of before
SELECT djactor.define_actor_type('retry', 'stumble', max_attempts => 5, backoff => '5 ms');
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES
	('retry', 'r', '{"fail": 0}'), ('retry', 'r', '{"fail": 3}'), ('retry', 'r', '{"fail": 0}');
CALL idle('retry');
SELECT state, turns, failures, last_error, status FROM djactor.actor WHERE actor_type = 'retry' AND actor_key = 'r';
SELECT count(*) AS dead FROM djactor.dead_letter WHERE actor_type = 'retry';

-- # max_attempts failures and no more: it is given up
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES
	('retry', 'limit', '{"fail": 4}'), ('retry', 'limit', '{"fail": 5}'), ('retry', 'limit', '{"fail": 0}');
CALL idle('retry');
SELECT state, turns, failures FROM djactor.actor WHERE actor_type = 'retry' AND actor_key = 'limit';
SELECT actor_key, payload, attempts, reason, sqlstate, error FROM djactor.dead_letter WHERE actor_type = 'retry';

-- # While it waits the message says how often it failed, why, and when its next attempt is due:
-- # after backoff, and up to a quarter more so that not all come at once
SELECT djactor.define_actor_type('retry.slow', 'stumble', backoff => '1 h', backoff_max => '1 day');
INSERT INTO djactor.message (actor_type, actor_key, payload) SELECT 'retry.slow', i::text, '{"fail": 9}' FROM generate_series(1, 20) i;
CALL wait_until($$NOT EXISTS (SELECT FROM djactor.message WHERE actor_type = 'retry.slow' AND attempts = 0)$$);
SELECT count(*), min(attempts) AS attempts, min(last_error) AS last_error,
	bool_and(retry_at >= sent_at + interval '1 h') AS not_early,
	bool_and(retry_at <= now() + interval '75 min') AS not_late,
	count(DISTINCT date_trunc('minute', retry_at)) > 1 AS not_all_at_once
FROM djactor.message WHERE actor_type = 'retry.slow';
SELECT count(*) AS actors FROM djactor.actor WHERE actor_type = 'retry.slow';

-- # Each wait is twice the one before: 40 + 80 + 160 ms at least
CREATE FUNCTION measure(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM stumble(state, message);
	RETURN to_jsonb(extract(epoch FROM clock_timestamp() - (djactor.message()).sent_at) * 1000);
END $$;
SELECT djactor.define_actor_type('retry.double', 'measure', backoff => '40 ms');
SELECT djactor.send('retry.double', 'd', '{"fail": 3}') > 0 AS sent;
CALL idle('retry.double');
SELECT turns, state::float >= 280 AS not_early, state::float < 30000 AS not_late FROM djactor.actor WHERE actor_type = 'retry.double';

-- # ... up to backoff_max: doubled on and on, these nine would take half a minute
SELECT djactor.define_actor_type('retry.double', 'measure', backoff => '60 ms', backoff_max => '70 ms', max_attempts => 10);
SELECT djactor.send('retry.double', 'm', '{"fail": 9}') > 0 AS sent;
CALL idle('retry.double');
SELECT turns, state::float >= 9 * 60 AS not_early, state::float < 20000 AS not_late FROM djactor.actor
WHERE actor_type = 'retry.double' AND actor_key = 'm';

-- # No backoff at all is fine
SELECT djactor.define_actor_type('retry.zero', 'stumble', backoff => '0', max_attempts => 3);
SELECT djactor.send('retry.zero', 'z', '{"fail": 2}') > 0 AS sent;
CALL idle('retry.zero');
SELECT state FROM djactor.actor WHERE actor_type = 'retry.zero';

-- # resume(type, key): the attempts are reset and the message is due now
SELECT djactor.define_actor_type('retry.resume', 'stumble', backoff => '1 h');
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('retry.resume', 'r', '{"fail": 0}'), ('retry.resume', 'r', '{"fail": 1}');
CALL wait_until($$EXISTS (SELECT FROM djactor.message WHERE actor_type = 'retry.resume' AND attempts = 1)$$);
CREATE OR REPLACE FUNCTION stumble(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS
	'SELECT collect(state, to_jsonb((djactor.message()).attempts))';
SELECT djactor.resume('retry.resume', 'r');
CALL idle('retry.resume');
SELECT state, turns FROM djactor.actor WHERE actor_type = 'retry.resume';

DELETE FROM djactor.dead_letter WHERE actor_type LIKE 'retry%';
SELECT count(djactor.drop_actor_type(name, true)) AS dropped FROM djactor.actor_type WHERE name LIKE 'retry%';
DROP FUNCTION stumble, measure;
