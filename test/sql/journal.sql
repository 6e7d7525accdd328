--
-- The journal: handled messages, kept by the types that ask for it.
-- Section 2 (tables).
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
CREATE FUNCTION journal_handler(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF message ? 'fail' AND (djactor.message()).attempts < (message->>'fail')::int THEN
		RAISE EXCEPTION 'told to fail';
	END IF;
	RETURN state;
END $$;
SELECT djactor.define_actor_type('journal.kept', 'journal_handler', journal => '1 d', max_attempts => 2, backoff => '0', backoff_max => '0');
SELECT djactor.define_actor_type('journal.none', 'journal_handler');

-- # A handled message moves to the journal with all that it had, under its id; other types leave nothing
INSERT INTO djactor.message (actor_type, actor_key, payload, headers, priority, idempotency_key, trace_id)
VALUES ('journal.kept', 'a', '{"n": 1}', '{"tenant": 7}', 3, 'once', '00000000-0000-0000-0000-000000000001') RETURNING id AS sent_id \gset
SELECT djactor.send('journal.none', 'a') > 0 AS sent;
CALL idle('journal.kept');
CALL idle('journal.none');
SELECT id = :sent_id AS same_id, actor_type, actor_key, payload, headers, priority, idempotency_key, trace_id, kind, attempts,
	turn, outcome, reply, sent_at <= started_at AND started_at <= finished_at AND finished_at <= clock_timestamp() AS in_order,
	worker_pid <> pg_backend_pid() AS by_a_worker
FROM djactor.journal WHERE actor_type LIKE 'journal.%';

-- # Turns are numbered in the actor's life
INSERT INTO djactor.message (actor_type, actor_key) SELECT 'journal.kept', 'a' FROM generate_series(1, 3);
CALL idle('journal.kept');
SELECT turn, payload FROM djactor.journal WHERE actor_type = 'journal.kept' ORDER BY id;

-- # Failed attempts leave no row of their own: the row tells how many there were; a dead letter has none
SELECT djactor.send('journal.kept', 'b', '{"fail": 1}') > 0 AS sent;
SELECT djactor.send('journal.kept', 'b', '{"fail": 9}') > 0 AS sent;
CALL idle('journal.kept');
SELECT attempts, turn, outcome, last_error, retry_at FROM djactor.journal WHERE actor_key = 'b';
SELECT payload, reason FROM djactor.dead_letter WHERE actor_type = 'journal.kept';

-- # drain() writes it too, and a rollback takes it back
BEGIN;
SELECT djactor.send('journal.kept', 'c') > 0 AS sent;
SELECT djactor.drain();
SELECT turn, worker_pid = pg_backend_pid() AS here FROM djactor.journal WHERE actor_key = 'c';
ROLLBACK;
SELECT count(*) FROM djactor.journal WHERE actor_key = 'c';

-- # A payload that is stored out of line is kept whole
INSERT INTO djactor.message (actor_type, actor_key, payload)
SELECT 'journal.kept', 'big', jsonb_build_object('s', string_agg(md5(i::text), '')) FROM generate_series(1, 1000) i;
CALL idle('journal.kept');
SELECT md5(payload->>'s') = md5((SELECT string_agg(md5(i::text), '') FROM generate_series(1, 1000) i)) AS whole
FROM djactor.journal WHERE actor_key = 'big';

-- # A type that keeps none any more writes none; DELETE is allowed, other changes are not
SELECT djactor.define_actor_type('journal.kept', 'journal_handler');
SELECT djactor.send('journal.kept', 'd') > 0 AS sent;
CALL idle('journal.kept');
SELECT count(*) FROM djactor.journal WHERE actor_key = 'd';
CALL fails('UPDATE djactor.journal SET turn = 0');
DELETE FROM djactor.journal WHERE actor_type = 'journal.kept';
SELECT count(*) FROM djactor.journal WHERE actor_type = 'journal.kept';

SELECT djactor.drop_actor_type('journal.kept', true);
SELECT djactor.drop_actor_type('journal.none', true);
DELETE FROM djactor.dead_letter WHERE actor_type = 'journal.kept';
DROP FUNCTION journal_handler;
