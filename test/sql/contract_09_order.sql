--
-- Contract 9: what one transaction sends is handled in the order in which it was sent; and if A was committed before B was
-- inserted, A is handled before B. (Senders in turn, and a commit that comes late: test/specs/contract-09-commit-order.spec.)
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql

SELECT djactor.define_actor_type('c09', 'collect', initial_state => '[]');

-- # One transaction, many statements, many actors, thousands of messages: more than a batch
BEGIN;
INSERT INTO djactor.message (actor_type, actor_key, payload)
	SELECT 'c09', (i % 2)::text, to_jsonb(i) FROM generate_series(1, 3000) i ORDER BY i;
SELECT count(djactor.send('c09', (i % 2)::text, to_jsonb(i))) AS sent FROM generate_series(3001, 3100) i;
COMMIT;

-- # Many transactions, one after the other, while the workers are at it
DO $$
BEGIN
	FOR i IN 3101..3400 LOOP
		INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('c09', (i % 2)::text, to_jsonb(i));
		COMMIT;
	END LOOP;
END $$;
CALL idle('c09');
SELECT actor_key, turns, state = (SELECT jsonb_agg(i ORDER BY i) FROM generate_series(1, 3400) i WHERE i % 2 = actor_key::int) AS in_order
FROM djactor.actor WHERE actor_type = 'c09' ORDER BY 1;

-- # A retry does not change it, under hold
CREATE FUNCTION c09_stumble(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF message::int % 4 = 0 AND (djactor.message()).attempts < 2 THEN
		RAISE EXCEPTION 'stumbles';
	END IF;
	RETURN collect(state, message);
END $$;
SELECT djactor.define_actor_type('c09.stumble', 'c09_stumble', initial_state => '[]', backoff => '1 ms');
INSERT INTO djactor.message (actor_type, actor_key, payload) SELECT 'c09.stumble', 'a', to_jsonb(i) FROM generate_series(1, 12) i;
CALL idle('c09.stumble');
SELECT state, failures FROM djactor.actor WHERE actor_type = 'c09.stumble';

SELECT djactor.drop_actor_type('c09', true), djactor.drop_actor_type('c09.stumble', true);
DROP FUNCTION c09_stumble;
