--
-- stash() puts the message aside, unstash_all() brings all back before what came later.
-- Section 2 (stash, unstash_all), section 3 points 6, 10 and 18.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
\i :tests/sql/include/obey.sql
-- The door: what comes is stashed until "open".
CREATE FUNCTION door(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF message = '"open"' THEN
		RETURN '["open ' || djactor.unstash_all() || '"]';
	ELSIF state = '[]' THEN
		PERFORM djactor.stash();
		RETURN state;
	END IF;
	RETURN state || message;
END $$;
SELECT djactor.define_actor_type('stash', 'door', initial_state => '[]', max_attempts => 2, backoff => '1 ms');

-- # What was stashed comes back in its order, before what waits behind; also in one batch
BEGIN;
INSERT INTO djactor.message (actor_type, actor_key, payload) SELECT 'stash', key, to_jsonb(i) FROM unnest('{a,b}'::text[]) key, generate_series(1, 5) i;
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('stash', 'a', '"open"'), ('stash', 'a', '6'), ('stash', 'a', '7');
COMMIT;
CALL idle('stash');
SELECT actor_key, state, stashed, turns FROM djactor.actor WHERE actor_type = 'stash' ORDER BY 1;

-- # Mail that is stashed is kept, shows in the mailbox, and is idle
SELECT actor_key, payload, aside FROM djactor.message WHERE actor_type = 'stash' ORDER BY id;
SELECT actor_key, depth FROM djactor.mailbox WHERE actor_type = 'stash';

-- # In another batch, by priority
INSERT INTO djactor.message (actor_type, actor_key, payload, priority) VALUES ('stash', 'b', '"first"', 5), ('stash', 'b', '"last"', -5);
CALL idle('stash');
INSERT INTO djactor.message (actor_type, actor_key, payload, priority) VALUES ('stash', 'b', '"open"', 1), ('stash', 'b', '6', 0);
CALL idle('stash');
SELECT actor_key, state, stashed FROM djactor.actor WHERE actor_type = 'stash' ORDER BY 1;
SELECT count(*) AS waiting FROM djactor.message WHERE actor_type = 'stash';

-- # drain() does the same; what a stashing turn sends is handled as well
BEGIN;
INSERT INTO djactor.message (actor_type, actor_key, payload) SELECT 'stash', 'drain', to_jsonb(i) FROM generate_series(1, 3) i;
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('stash', 'drain', '"open"'), ('stash', 'drain', '4');
SELECT djactor.drain() > 0 AS drained;
SELECT state FROM djactor.actor WHERE actor_key = 'drain';
SELECT djactor.define_actor_type('stash.obey', 'obey');
SELECT tell('stash.obey', 'x', 'stash and send', $$SELECT djactor.stash()$$, $$SELECT tell('stash.obey', 'x', 'sent')$$);
SELECT djactor.drain();
SELECT * FROM heard();
ROLLBACK;

-- # In a turn that fails, or a subtransaction that is rolled back, nothing is stashed or brought back
SELECT djactor.define_actor_type('stash.obey', 'obey', max_attempts => 2, backoff => '1 ms', breaker_failures => NULL);
SELECT tell('stash.obey', 'x', 'fails', $$SELECT djactor.stash()$$, 'SELECT 1/0');
SELECT tell('stash.obey', 'x', 'rolled back', $q$DO $$BEGIN PERFORM djactor.stash(); RAISE division_by_zero; EXCEPTION WHEN OTHERS THEN NULL; END$$$q$);
SELECT tell('stash.obey', 'x', 'stashed', $$SELECT djactor.stash()$$);
SELECT tell('stash.obey', 'x', 'unstash fails', $$SELECT djactor.unstash_all()$$, 'SELECT 1/0');
SELECT tell('stash.obey', 'x', 'unstash rolled back', $q$DO $$BEGIN PERFORM djactor.unstash_all(); RAISE division_by_zero; EXCEPTION WHEN OTHERS THEN NULL; END$$$q$);
CALL idle('stash.obey');
SELECT * FROM heard();
SELECT stashed FROM djactor.actor WHERE actor_type = 'stash.obey';
SELECT payload->>'n' AS waits, aside FROM djactor.message WHERE actor_type = 'stash.obey';
SELECT payload->>'n' AS dead, reason FROM djactor.dead_letter WHERE actor_type = 'stash.obey' ORDER BY id;

-- # unstash_all() brings back what was stashed before, not the message of the turn itself; twice is once
SELECT tell('stash.obey', 'x', 'both', $$INSERT INTO told (actor_key, word) SELECT 'x', djactor.unstash_all() || ' and ' || djactor.unstash_all()$$, $$SELECT djactor.stash()$$);
CALL idle('stash.obey');
SELECT word FROM told ORDER BY serial;
SELECT payload->>'n' AS waits, aside FROM djactor.message WHERE actor_type = 'stash.obey' ORDER BY id;
SELECT stashed FROM djactor.actor WHERE actor_type = 'stash.obey';

-- # A stashed message can be cancelled
SELECT count(djactor.cancel(id)) AS cancelled FROM djactor.message WHERE actor_type = 'stash.obey';
SELECT tell('stash.obey', 'x', 'stashed', $$SELECT CASE WHEN (djactor.message()).sent_at > now() - interval '1 min' AND NOT EXISTS (SELECT FROM told WHERE word = 'unstash') THEN djactor.stash() END$$), tell('stash.obey', 'x', 'unstash', $$SELECT djactor.unstash_all()$$);
CALL idle('stash.obey');
SELECT count(*) AS left FROM djactor.message WHERE actor_type = 'stash.obey';

-- # Who asked waits, and gets one answer, though the turn that stashed had answered already
CREATE FUNCTION answers(state jsonb, message jsonb) RETURNS djactor.result LANGUAGE plpgsql AS $$
BEGIN
	IF message = '"open"' THEN
		PERFORM djactor.unstash_all();
		RETURN ('{"open": true}'::jsonb, NULL::jsonb);
	ELSIF NOT state ? 'open' THEN
		PERFORM djactor.stash();
		IF message = '"eager"' THEN
			PERFORM djactor.reply('"early"');
		END IF;
		RETURN (NULL::jsonb, '"ignored"'::jsonb);
	END IF;
	RETURN (state, '"late"'::jsonb);
END $$;
SELECT djactor.define_actor_type('stash.ask', 'answers', max_attempts => 1);
SELECT djactor.send('stash.ask', 'a', '"eager"', wants_reply => true) AS eager, djactor.send('stash.ask', 'a', '"patient"', wants_reply => true) AS patient \gset
CALL idle('stash.ask');
SELECT payload, error FROM djactor.reply WHERE message_id IN (:eager, :patient) ORDER BY message_id;
SELECT djactor.send('stash.ask', 'a', '"open"') > 0 AS sent;
CALL idle('stash.ask');
SELECT payload, error FROM djactor.reply WHERE message_id IN (:eager, :patient) ORDER BY message_id;
SELECT count(*) AS dead FROM djactor.dead_letter WHERE actor_type = 'stash.ask';

-- # A stash holds a thousand messages; more is an error of the turn, and nothing is lost
INSERT INTO djactor.message (actor_type, actor_key, payload) SELECT 'stash', 'full', to_jsonb(i) FROM generate_series(1, 1001) i;
CALL idle('stash');
INSERT INTO djactor.message (actor_type, actor_key, payload) SELECT 'stash', 'full', '"open"';
CALL idle('stash');
SELECT state->0 AS opened, jsonb_array_length(state) AS n, stashed FROM djactor.actor WHERE actor_key = 'full';
SELECT payload, reason, sqlstate, error FROM djactor.dead_letter WHERE actor_key = 'full';
SELECT count(*) AS left FROM djactor.message WHERE actor_key = 'full';

-- # Outside a turn
CALL fails($$SELECT djactor.stash()$$);
CALL fails($$SELECT djactor.unstash_all()$$);

SELECT count(djactor.drop_actor_type(name, true)) AS dropped FROM djactor.actor_type WHERE name LIKE 'stash%';
DELETE FROM djactor.reply;
DROP FUNCTION door, answers, obey, tell, heard;
DROP TABLE told;
