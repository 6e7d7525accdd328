--
-- Contract 10: delay, priority, stash and retry_order => 'skip' take a message out of the order of sending; the others
-- keep theirs.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql

CREATE FUNCTION c10(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF message ? 'fail' AND (djactor.message()).attempts = 0 THEN
		RAISE EXCEPTION 'fails once';
	ELSIF message ? 'stash' AND NOT state ? 'open' THEN
		PERFORM djactor.stash();
		RETURN state;
	ELSIF message ? 'open' THEN
		PERFORM djactor.unstash_all();
	END IF;
	RETURN collect(state, message -> 'n') || CASE WHEN message ? 'open' THEN '["open"]' ELSE '[]' END::jsonb;
END $$;
SELECT djactor.define_actor_type('c10', 'c10', initial_state => '[]', backoff => '1 ms'),
	djactor.define_actor_type('c10.skip', 'c10', initial_state => '[]', backoff => '1 h', retry_order => 'skip');

-- # A delay, a priority
INSERT INTO djactor.message (actor_type, actor_key, payload, deliver_at, priority) VALUES
	('c10', 'delay', '{"n": 1}', now() + interval '100 ms', 0), ('c10', 'delay', '{"n": 2}', NULL, 0), ('c10', 'delay', '{"n": 3}', NULL, 0),
	('c10', 'priority', '{"n": 1}', NULL, 0), ('c10', 'priority', '{"n": 2}', NULL, 1), ('c10', 'priority', '{"n": 3}', NULL, 0);

-- # A failed message: the others wait for it under hold
INSERT INTO djactor.message (actor_type, actor_key, payload)
	SELECT 'c10', 'retry', m FROM jsonb_array_elements('[{"n": 1}, {"n": 2, "fail": 1}, {"n": 3}]') m;

-- # What was stashed comes back before what was sent later than it, and among itself in order
INSERT INTO djactor.message (actor_type, actor_key, payload)
	SELECT 'c10', 'stash', m FROM jsonb_array_elements('[{"n": 1, "stash": 1}, {"n": 2}, {"n": 3, "stash": 1}, {"n": 4, "open": 1}, {"n": 5}]') m;
CALL wait_until($$(SELECT count(*) FROM djactor.message WHERE actor_type = 'c10') = 0$$);
SELECT actor_key, state FROM djactor.actor WHERE actor_type = 'c10' ORDER BY 1;

-- # Under skip they overtake it, also those that are sent later
INSERT INTO djactor.message (actor_type, actor_key, payload)
	SELECT 'c10.skip', 'retry', m FROM jsonb_array_elements('[{"n": 1}, {"n": 2, "fail": 1}, {"n": 3}]') m;
CALL wait_until($$(SELECT turns FROM djactor.actor WHERE actor_type = 'c10.skip') = 2$$);
SELECT djactor.pause('c10.skip');
SELECT djactor.send('c10.skip', 'retry', '{"n": 4}') > 0 AS sent;
-- its mailbox is looked through from the start
SELECT djactor.resume('c10.skip');
CALL wait_until($$(SELECT turns FROM djactor.actor WHERE actor_type = 'c10.skip') = 3$$);
SELECT state FROM djactor.actor WHERE actor_type = 'c10.skip';
SELECT payload, attempts FROM djactor.message WHERE actor_type = 'c10.skip';

SELECT djactor.drop_actor_type('c10', true), djactor.drop_actor_type('c10.skip', true);
DROP FUNCTION c10;
